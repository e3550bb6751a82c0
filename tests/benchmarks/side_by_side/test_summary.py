"""The numbers of a table from rounds whose statistics are known."""

import pytest

from benchmarks.side_by_side.summary import summarise


def side(seconds, rate, cpu=2.0):
    return {
        "seconds": seconds,
        "cpu_seconds": [cpu * s for s in seconds],
        "multiply_flops_per_second": rate,
        "memory": {"bytes": 7, "device_bytes": None},
    }


def test_medians_quartiles_and_paired_ratios():
    """Seven rounds in which the machine slows down threefold: the ratio of each is 2 but for two."""
    ours = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    ratios = [2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 5.0]
    theirs = [a * b for a, b in zip(ours, ratios, strict=True)]
    found = summarise({"us": side(ours, [9.0, 10.0, 11.0]), "them": side(theirs, [20.0, 30.0], cpu=4.0)}, flops=50)
    assert found["matmul_flops_per_second"] == {"us": 10.0, "them": 25.0}
    us, them = found["sides"]["us"], found["sides"]["them"]
    assert us["median"] == 2.5 and us["iqr"] == [1.75, 3.25] and us["cpu_seconds"] == 5.0 and us["ratio"] is None
    assert us["flops_per_second"] == 20.0 and us["share"] == 20 / 25  # of the faster product of the two
    assert them["median"] == 4.0 and them["share"] == 50 / 4 / 25
    # Order statistics: of 7 values, least and greatest enclose the median with probability 1 − 2/2⁷ = 98 %.
    assert them["ratio"] == {"median": 2.0, "ci95": [1.0, 5.0]}
    assert them["cpu_ratio"] == {"median": 4.0, "ci95": [2.0, 10.0]}
    assert (us["bytes"], us["device_bytes"]) == (7, None)


def test_the_ratio_is_of_rounds_and_not_of_medians():
    ours, theirs = [1.0, 10.0, 1.0, 10.0, 1.0, 10.0, 10.0], [3.0, 30.0, 3.0, 30.0, 3.0, 30.0, 30.0]
    found = summarise({"us": side(ours, [1.0]), "them": side(theirs[::-1], [1.0])}, flops=1)
    assert found["sides"]["them"]["ratio"]["median"] == pytest.approx(3.0)
    assert found["sides"]["them"]["ratio"]["ci95"] == pytest.approx([0.3, 30.0])
