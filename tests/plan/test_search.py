"""The search over slices, with a stand-in for the compiler."""

import dataclasses
import math

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
    # Also q, k, v, attention and the hidden layer of 4 d, a quarter of each, and two outputs of d.
    assert least_memory(FULL, ALL, TOKENS, shape, "dots") == state + kept * (1 + (4 + 4) / 4 + 2)
    assert least_memory(FULL, HEAD, TOKENS, shape, "full") == pytest.approx((8 * SIZE + 12 * 2e7) / 32)
    for name, less in (("averages", 4), ("optimizer", 8), ("both", 12)):
        run = experiment.load("configs/framepack_f1_13b.py", [f"--config.training.host_state={name}"])
        assert least_memory(run, ALL, TOKENS, shape, "full") == (20 - less) * SIZE / 32 + kept


def test_candidates_fill_the_slice_and_stay_below_the_bound():
    place = parse_slice("v6e:8x8")
    found = candidates(FULL, ALL, TOKENS, place)
    assert found
    for c in found:
        assert c.shape.fsdp * c.shape.context * c.shape.tensor == 64
        assert c.least == least_memory(FULL, ALL, TOKENS, c.shape, c.remat) <= 0.9 * 32e9
    assert not candidates(FULL, ALL, TOKENS, parse_slice("v5e:2x2"))  # 260 GB on four chips of 16


def compiler(peak, seen):
    """Plans `peak(name, shape, least)`; less remat is faster, and a step of half the videos takes 0.6 of the time."""

    def compile_one(config, topology, shape):
        place, remat = parse_slice(topology), config.model.remat
        alone = {"none": 3.0, "dots": 3.5, "full": 4.0}[remat]
        row = Row(
            topology=topology,
            mesh=str(shape),
            remat=remat,
            step="stage 1",
            chips=place.size,
            videos=shape.fsdp,
            segments=1,
            memory=place.chip.memory,
            peak=peak(topology, shape, least_memory(config, ALL, TOKENS, shape, remat)),
            compute_seconds=alone * 0.6 ** math.log2(shape.context * shape.tensor),
        )
        seen.append((topology, shape, row))
        return row

    return compile_one


def times(overhead):
    return lambda topology, shape, least: overhead * least


@pytest.mark.parametrize("overhead", [1.0, 1.3, 1.8, 3.0])
@pytest.mark.parametrize("chip", CHIPS)
def test_it_finds_the_smallest_slice(chip, overhead):
    seen = []
    best = search(FULL, ALL, TOKENS, chip, compiler(times(overhead), seen))
    fits = [
        name
        for name in (f"{chip}:{shape}" for shape in CHIPS[chip].slices)
        if any(overhead * c.least <= 0.9 * CHIPS[chip].memory for c in candidates(FULL, ALL, TOKENS, parse_slice(name)))
    ]
    assert len(seen) <= module.MOST_COMPILES
    assert len({(name, shape, row.remat) for name, shape, row in seen}) == len(seen)  # nothing twice
    if not fits:
        assert best is None
        return
    assert best.topology == fits[0] and best.fits
    cost = [row.compute_seconds / shape.fsdp for name, shape, row in seen if row.fits and name == fits[0]]
    assert best.compute_seconds / best.videos == min(cost)


def test_a_step_of_fewer_videos_is_not_better_for_being_shorter():
    """With room for everything: 4 s for four videos are better than 2.4 s for two."""
    seen = []
    best = search(FULL, ALL, TOKENS, "v5p", compiler(lambda name, *_: 1.0, seen))
    assert min(row.seconds for _, _, row in seen) < best.seconds
    assert "context=1, tensor=1" in best.mesh


def test_a_slice_is_not_given_up_for_one_mesh():
    """Where just the mesh of the least bound needs more than it says, the next one still fits."""
    seen = []
    name = "v5p:2x2x4"
    least = min(candidates(FULL, ALL, TOKENS, parse_slice(name)), key=lambda c: c.least).shape

    def peak(topology, shape, bound):
        return 1e12 if topology == name and shape == least else 1.5 * bound

    best = search(FULL, ALL, TOKENS, "v5p", compiler(peak, seen))
    assert best.topology == "v5p:2x2x2"


@pytest.mark.parametrize("overhead", [1.0, 100.0])
@pytest.mark.parametrize("most", [2, 3])
def test_the_budget_of_programs_holds(most, overhead):
    """Also where nothing fits, and it ends between two meshes of a slice."""
    seen = []
    search(FULL, ALL, TOKENS, "v5p", compiler(times(overhead), seen), most)
    assert len(seen) == most


def test_a_row_fits_into_nine_tenths():
    row = Row(
        topology="v6e:2x2", mesh="", remat="full", step="", chips=4, videos=1, segments=1, memory=32e9, peak=28.8e9
    )
    assert row.fits and not dataclasses.replace(row, peak=28.9e9).fits and not dataclasses.replace(row, error="x").fits
    timed = dataclasses.replace(row, useful=918e12, compute_seconds=0.25, link_seconds=0.5)
    assert timed.seconds == 0.5 and timed.mfu == 0.5  # one chip's second of work, on four in half a second
