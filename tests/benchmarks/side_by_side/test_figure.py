"""What is drawn of a record, and how its tables round."""

from benchmarks.side_by_side.figure import figure, ratios
from benchmarks.side_by_side.table import page

OURS = {"ratio": None, "cpu_ratio": None}
ROW = {"median": 2.0, "iqr": [1.9, 2.1], "cpu_seconds": 3.0, "flops_per_second": 5e10, "share": 0.5}
ROW |= {"bytes": 3e9, "device_bytes": None}


def side(median):
    return {**ROW, **{name: {"median": median, "ci95": [median - 0.2, median + 0.3]} for name in OURS}}


CASES = {
    "forward": {"sides": {"us": ROW | OURS, "them": side(1.5), "others": side(0.9)}},
    "vae_decode": {"sides": {"us": ROW | OURS, "them": side(2.0)}},
    "length": {
        "weights": "runs/a",
        "segments": 9,
        "summary": {"seconds_first_tenth": 1.0, "seconds_last_tenth": 2.0, "ratio": 2.0},
    },
}


def test_ratios_are_those_of_rivals():
    found = ratios(CASES)
    assert {rival: {case: row["median"] for case, row in rows.items()} for rival, rows in found.items()} == {
        "them": {"forward": 1.5, "vae_decode": 2.0},
        "others": {"forward": 0.9},
    }
    assert figure(CASES).startswith(b"\x89PNG")
    assert ratios({"length": CASES["length"]}) == {}


def test_a_page_has_every_table():
    record = {"command": "a b", "commit": "c", "machine": {"device": "cpu", "cores": 2}, "cases": CASES}
    lines = page(record).splitlines()
    assert lines[0] == "`a b`" and lines[2] == "cpu, 2 cores, commit c"
    assert "| us | 2 | 1.9 to 2.1 |  | 3 |  | 50 | 50% | 3.00 |" in lines
    assert "| them | 2 | 1.9 to 2.1 | 1.50 (1.30 to 1.80) | 3 | 1.50 (1.30 to 1.80) | 50 | 50% | 3.00 |" in lines
    assert "| runs/a | 9 | 1 | 2 | 2.000 |" in lines
