"""The command on a small network: what it times is the stage it names, and its numbers agree with each other."""

import json

import jax
import numpy as np
import pytest

from benchmarks import train_step
from mpjax import experiment
from mpjax.models.flops import velocity_flops
from mpjax.plan.steps import example_batch, tokens_of

SMOKE = "configs/framepack_f1_13b.py:smoke"


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    out = tmp_path_factory.mktemp("train_step") / "new" / "step.json"
    flags = ["--stage=2", "--segments=2", "--repeats=6", "--peak-tflops=0.5"]
    assert train_step.main([f"--config={SMOKE}", f"--out={out}", *flags]) == 0
    return json.loads(out.read_text())


def test_a_head_only_update(record):
    """Of the parameters the head alone is trained: AdaLN's 2 d and the projection to 16 channels of 2 × 2 patches."""
    d, patch = 32, 16 * 2 * 2
    assert record["stage"] == 2 and record["finite"]
    assert record["trained_parameters"] == (d * 2 * d + 2 * d) + (d * patch + patch) < record["parameters"]
    assert record["planned_bytes"] > 2 * 4 * record["parameters"]  # parameters and averages
    parts = velocity_flops(experiment.load(SMOKE).model, tokens_of(experiment.load(SMOKE)))
    # Of each of the two segments one evaluation, which also draws what history shows, and the gradient of the head.
    assert record["useful_flops"] == 2 * (sum(parts.values()) + 2 * parts["head"])


def test_its_numbers_agree(record):
    seconds = record["seconds"]["median"]
    assert record["seconds"]["repeats"] == 6 and 0 < record["seconds"]["least"] <= seconds
    np.testing.assert_allclose(record["mfu"] * 0.5e12 * seconds, record["useful_flops"], rtol=1e-9)
    np.testing.assert_allclose(record["tflops_per_second"], 0.5 * record["mfu"], rtol=1e-9)
    assert record["peak_bytes"] is None  # a CPU does not tell
    assert {"command", "commit", "versions", "machine"} <= set(record)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--stage=3"], "--stage is 3: configs/framepack_f1_13b.py:smoke has stages 1 to 2"),
        (["--repeats=5"], "--repeats is 5: give at least 6"),
        (["--peak-tflops=0"], "--peak-tflops above 0"),
        (["--out=/dev/null/a.json"], "cannot be written"),
    ],
)
def test_bad_input_is_refused_before_compute(tmp_path, capsys, monkeypatch, flags, words):
    monkeypatch.setattr(train_step, "measure", None)
    assert train_step.main([f"--config={SMOKE}", f"--out={tmp_path / 'a.json'}", *flags]) == 2
    assert words in capsys.readouterr().err


def test_what_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    def refuse(what, needed, device):
        raise train_step.InputError(f"{what} needs {needed}")

    class Program:
        def compile(self):
            return self

    monkeypatch.setattr(train_step, "lower_train_step", lambda *_: Program())
    monkeypatch.setattr(train_step, "planned_bytes", lambda _: 7)
    monkeypatch.setattr(train_step, "check_memory", refuse)
    monkeypatch.setattr(train_step, "state_factory", None)
    with pytest.raises(train_step.InputError, match="an update needs 7"):
        train_step.measure(experiment.load(SMOKE), number=2, segments=2, peak_tflops=None, repeats=6)


def test_a_random_batch_is_of_the_experiments_shapes():
    loaded = experiment.load(SMOKE)
    like = example_batch(loaded, 1, 3)
    batch = train_step.random_batch(like, jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(lambda x: (x.shape, x.dtype), like)
    assert (np.asarray(batch.weight) == 1).all() and 0.8 < float(batch.segments.std()) < 1.2
    assert np.asarray(batch.prompts.text_mask).all()
