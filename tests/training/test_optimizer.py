"""Learning-rate schedules in closed form, the curriculum's arithmetic, and the forcings as a config names them."""

import json
import math

import pytest

from mpjax import config
from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import (
    Direct,
    Echo,
    ErrorRecycling,
    Helios,
    HistoryNoise,
    LowNoise,
    Resampling,
    Residual,
    SeparateTime,
    Student,
    Teacher,
)
from mpjax.errors import InputError
from mpjax.training.curriculum import Stage, batch_at, segments_at, stage_at, total_steps
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


def test_repeated_batches_begin_with_their_stage():
    stages = (Stage(steps=5, curriculum=((0, 1),), repeat=2), Stage(steps=7, curriculum=((0, 1),), repeat=3))
    assert [batch_at(stages, n) for n in range(12)] == [0, 0, 2, 2, 4, 5, 5, 5, 8, 8, 8, 11]
    assert [batch_at(STAGES, n) for n in range(16)] == list(range(16))


@pytest.mark.parametrize(
    ("fields", "arm"),
    [
        ({}, Teacher()),
        ({"kind": "history_noise", "sigma": [0.0, 0.3]}, HistoryNoise(sigma=(0.0, 0.3))),
        (
            {"kind": "helios", "blur": [0.1, 0.2], "noise_probability": 0.5},
            Helios(blur=(0.1, 0.2), noise_probability=0.5),
        ),
        ({"kind": "direct"}, Direct()),
        ({"kind": "direct", "estimate": {"kind": "low_noise", "t_min": 0.5}}, Direct(estimate=LowNoise(t_min=0.5))),
        (
            {"kind": "direct", "steps": 2, "clean_mix": 0.25, "estimate": {"kind": "separate", "time": {"shift": 2.0}}},
            Direct(steps=2, clean_mix=0.25, estimate=SeparateTime(time=TimeDistribution(shift=2.0))),
        ),
        ({"kind": "residual", "scale": 1, "entry": False}, Residual(scale=1.0, entry=False)),
        ({"kind": "residual", "estimate": {"kind": "separate"}}, Residual(estimate=SeparateTime())),
        ({"kind": "echo", "in_input": False}, Echo(in_input=False)),
        ({"kind": "student", "steps": 10}, Student(steps=10)),
        ({"kind": "resampling", "time": {"name": "uniform"}}, Resampling(time=TimeDistribution())),
        ({"kind": "error_recycling", "size": 8}, ErrorRecycling(size=8)),
    ],
    ids=lambda x: x.kind if hasattr(x, "kind") else "",
)
def test_every_forcing_has_a_name_in_a_config_and_survives_json(fields, arm):
    stage = config.build(Stage, {"steps": 1, "curriculum": [(0, 1)], "repeat": 2, "forcing": fields})
    assert stage.forcing == arm
    assert config.build(Stage, json.loads(json.dumps(config.to_dict(stage)))) == stage


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
        (Stage, {"steps": 1, "curriculum": ((0, 1),), "repeat": 0}, "repeat"),
        (Stage, {"steps": 1, "curriculum": ((0, 1),), "forcing": Echo()}, "repeat is 1.* at least 2 with forcing echo"),
    ],
)
def test_bad_fields_are_named(cls, fields, named):
    with pytest.raises(InputError, match=named):
        cls(**fields)
