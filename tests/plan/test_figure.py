"""Figures of weak scaling, read back from the drawing."""

import dataclasses

import pytest

from mpjax.plan.figure import scaling_figures
from mpjax.plan.row import Row

# v6e: 918e12 operations a second. Every chip has 918e12 useful ones: one second, and a quarter more by links.
ROW = Row(
    topology="v6e:8x8",
    mesh="fsdp 64",
    remat="full",
    step="stage 1",
    chips=64,
    videos=64,
    segments=5,
    memory=32e9,
    useful=64 * 918e12,
    executed=64 * 918e12,
    moved={"all-gather": 3e9, "all-reduce": 1e9},
    compute_seconds=1.0,
    memory_seconds=0.5,
    link_seconds=0.5,
)


def of(chips, **changes):
    return dataclasses.replace(ROW, chips=chips, useful=chips * 918e12, **changes)


def lines(figure):
    return {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].get_lines()}


def test_what_is_sent_and_both_efficiencies():
    rows = [of(256, moved={"all-reduce": 6e9}, link_seconds=2.0), of(64), of(512, error="no room")]
    figures = scaling_figures(rows)
    assert lines(figures["sent"]) == {"stage 1, v6e": [[64, 4.0], [256, 6.0]]}
    drawn = lines(figures["efficiency"])
    assert drawn["stage 1, v6e, all overlapped"] == [[64, 100.0], [256, 50.0]]
    assert drawn["stage 1, v6e, nothing overlapped"] == [[64, 50.0], [256, pytest.approx(100 / 3.5)]]


def test_one_slice_is_no_figure():
    assert scaling_figures([of(64), of(64, step="stage 2"), of(256, error="no room")]) == {}


def test_kinds_of_chips_are_not_joined():
    """Two sizes of each, one of them the same."""
    other = [of(chips, topology=topology) for chips, topology in ((64, "v5p:4x4x4"), (512, "v5p:8x8x8"))]
    drawn = lines(scaling_figures([*other, of(64), of(256)])["sent"])
    assert {name: [x for x, _ in points] for name, points in drawn.items()} == {
        "stage 1, v5p": [64, 512],
        "stage 1, v6e": [64, 256],
    }
    assert scaling_figures([other[0], of(256)]) == {}
