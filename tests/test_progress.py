from mpjax.progress import ByteProgress, counted


def test_bytes_are_told_in_megabytes_and_the_end_once():
    said = []
    progress = ByteProgress(3_500_000, said.append)
    for count in (1_000_000, 1_000_000, 1_400_000, 60_000, 40_000):
        progress.add(count)
    assert len(said) == 1 and said[0].startswith("4/4 ") and said[0].endswith(" left  MB")


def test_counts_in_words():
    said = [counted(n, "clip") for n in (0, 1, 2)] + [counted(n, "entry", "entries") for n in (1, 2)]
    assert said == ["0 clips", "1 clip", "2 clips", "1 entry", "2 entries"]
