from mpjax.data.pipeline import on_device


def test_the_next_batches_are_on_their_way():
    placed = []

    def place(batch):
        placed.append(batch)
        return batch * 10

    batches = on_device(iter(range(5)), place, ahead=2)
    assert next(batches) == 0 and placed == [0, 1, 2]
    assert next(batches) == 10 and placed == [0, 1, 2, 3]
    assert list(batches) == [20, 30, 40] and placed == [0, 1, 2, 3, 4]
