"""The search over slices, with a stand-in for the compiler."""

import dataclasses

import pytest

from mpjax import experiment
from mpjax.models.flops import Tokens
from mpjax.parallel.mesh import MeshShape
from mpjax.plan import search as module
from mpjax.plan.chips import CHIPS, parse_slice
from mpjax.plan.command import count
from mpjax.plan.row import Row
from mpjax.plan.search import Parameters, candidates, least_memory, search

FULL = experiment.load("configs/framepack_f1_13b.py")
SIZE = 13_000_000_000
ALL, HEAD = Parameters(all=SIZE, trained=SIZE), Parameters(all=SIZE, trained=20_000_000)
TOKENS = Tokens(noisy=14_040, history=(3_120, 390, 416), image=729, text=512, memory=1_950)
N = 21_157


def test_parameters_of_the_13b():
    found = count(FULL, "output_head")
    assert 13e9 < found.all < 13.5e9 and 0 < found.trained < 0.01 * found.all
    assert count(FULL, "all").trained == found.all


def test_least_memory_by_hand():
    """20 bytes a trained parameter (itself, average, two moments, gradient), 8 a frozen one, 60 block inputs."""
    shape = MeshShape(fsdp=8, context=2, tensor=4)
    state, kept = 20 * SIZE / 32, 60 * N / 2 * 3072 * 2
    assert least_memory(FULL, ALL, TOKENS, shape, "full") == state + kept
    # Also q, k, v, the hidden layer of 4 d on a quarter of it, and two outputs of d.
    assert least_memory(FULL, ALL, TOKENS, shape, "dots") == state + kept * (1 + (3 + 4) / 4 + 2)
    assert least_memory(FULL, HEAD, TOKENS, shape, "full") == pytest.approx((8 * SIZE + 12 * 2e7) / 32)


def test_candidates_fill_the_slice_and_stay_below_the_bound():
    place = parse_slice("v6e:8x8")
    found = candidates(FULL, ALL, TOKENS, place)
    assert found
    for c in found:
        assert c.shape.fsdp * c.shape.context * c.shape.tensor == 64
        assert c.least == least_memory(FULL, ALL, TOKENS, c.shape, c.remat) <= 0.9 * 32e9
    assert not candidates(FULL, ALL, TOKENS, parse_slice("v5e:2x2"))  # 260 GB on four chips of 16


def compiler(overhead, seen):
    """Plans so much more than the closed form says, and is faster the less is recomputed."""

    def compile_one(config, topology, shape):
        place, remat = parse_slice(topology), config.model.remat
        seen.append((topology, shape, remat))
        return Row(
            topology=topology,
            mesh=str(shape),
            remat=remat,
            step="stage 1",
            chips=place.size,
            videos=1,
            segments=1,
            memory=place.chip.memory,
            peak=overhead * least_memory(config, ALL, TOKENS, shape, remat),
            compute_seconds={"none": 3.0, "dots": 3.5, "full": 4.0}[remat] / shape.tensor,
        )

    return compile_one


@pytest.mark.parametrize("overhead", [1.0, 1.3, 1.8, 3.0])
@pytest.mark.parametrize("chip", CHIPS)
def test_it_finds_the_smallest_slice(chip, overhead):
    seen = []
    found = search(FULL, ALL, TOKENS, chip, compiler(overhead, seen))
    fits = [
        name
        for name in (f"{chip}:{shape}" for shape in CHIPS[chip].slices)
        if any(overhead * c.least <= 0.9 * CHIPS[chip].memory for c in candidates(FULL, ALL, TOKENS, parse_slice(name)))
    ]
    assert len(seen) == len(found.rows) <= module.MOST_COMPILES
    assert len(set(seen)) == len(seen)  # nothing twice
    if not fits:
        assert found.best is None
        return
    assert found.best.topology == fits[0] and found.best.fits
    assert found.best.seconds == min(row.seconds for row in found.rows if row.fits and row.topology == fits[0])


def test_the_budget_of_programs_holds(monkeypatch):
    monkeypatch.setattr(module, "MOST_COMPILES", 2)
    seen = []
    search(FULL, ALL, TOKENS, "v5p", compiler(1.0, seen))
    assert len(seen) == 2


def test_a_row_fits_into_nine_tenths():
    row = Row(
        topology="v6e:2x2", mesh="", remat="full", step="", chips=4, videos=1, segments=1, memory=32e9, peak=28.8e9
    )
    assert row.fits and not dataclasses.replace(row, peak=28.9e9).fits and not dataclasses.replace(row, error="x").fits
    timed = dataclasses.replace(row, useful=918e12, compute_seconds=0.25, link_seconds=0.5)
    assert timed.seconds == 0.5 and timed.mfu == 0.5  # one chip's second of work, on four in half a second
