"""Learning-rate schedules in closed form, and the curriculum's arithmetic."""

import math

import pytest

from mpjax.errors import InputError
from mpjax.training.curriculum import Stage, segments_at, stage_at, total_steps
from mpjax.training.optimizer import Optimizer


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_schedule(decay):
    """Warm-up rises to the peak in 4 updates and never wastes one at 0; decay ends at the stage's end."""
    optimizer = Optimizer(learning_rate=2e-3, warmup_steps=4, decay=decay, final_fraction=0.1)
    rate = optimizer.schedule(20)
    assert float(rate(0)) == pytest.approx(2e-3 / 4, rel=1e-6)
    assert float(rate(2)) == pytest.approx(2e-3 / 4 + 0.5 * (2e-3 - 2e-3 / 4), rel=1e-6)
    for n in range(4, 21):
        done = (n - 4) / 16
        fall = {"constant": 0.0, "linear": 0.9 * done, "cosine": 0.9 * (1 - math.cos(math.pi * done)) / 2}[decay]
        assert float(rate(n)) == pytest.approx(2e-3 * (1 - fall), rel=1e-5)


def test_schedule_without_warmup_starts_at_the_peak():
    assert float(Optimizer(learning_rate=1e-3, decay="linear").schedule(10)(0)) == pytest.approx(1e-3)


STAGES = (Stage(steps=10, curriculum=((0, 2), (4, 3))), Stage(steps=5, curriculum=((0, 4), (2, 6)), given=1))


def test_curriculum_by_update():
    want = [2] * 4 + [3] * 6 + [4] * 2 + [6] * 3 + [6] * 2  # the last entry goes on after the end
    assert [segments_at(STAGES, n) for n in range(17)] == want
    assert [stage_at(STAGES, n) for n in (0, 9, 10, 14, 15)] == [(0, 0), (0, 0), (1, 10), (1, 10), (1, 10)]
    assert total_steps(STAGES) == 15


@pytest.mark.parametrize(
    ("cls", "fields", "named"),
    [
        (Optimizer, {"decay": "exponential"}, "decay"),
        (Optimizer, {"learning_rate": 0.0}, "learning_rate"),
        (Optimizer, {"clip_norm": 0.0}, "clip_norm"),
        (Optimizer, {"warmup_steps": -1}, "warmup_steps"),
        (Stage, {"steps": 0, "curriculum": ((0, 1),)}, "steps"),
        (Stage, {"steps": 1, "curriculum": ()}, "curriculum"),
        (Stage, {"steps": 1, "curriculum": ((1, 1),)}, "curriculum"),
        (Stage, {"steps": 1, "curriculum": ((0, 1), (0, 2))}, "curriculum"),
        (Stage, {"steps": 1, "curriculum": ((0, 1),), "given": 1}, "given"),
        (Stage, {"steps": 1, "curriculum": ((0, 1),), "bptt_depth": -1}, "bptt_depth"),
    ],
)
def test_bad_fields_are_named(cls, fields, named):
    with pytest.raises(InputError, match=named):
        cls(**fields)
