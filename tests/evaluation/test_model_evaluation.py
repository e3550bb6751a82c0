"""Recall and drift of models: an untrained one must be at chance, one that copies its past must not drift."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.data.recallworld.world import World
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Euler
from mpjax.errors import InputError
from mpjax.evaluation.drift import evaluate_drift
from mpjax.evaluation.recall import evaluate_recall
from mpjax.models.architecture import Architecture, Encoders, FramePack
from mpjax.models.encoders import Condition
from mpjax.models.framepack import empty_history
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser

ARCHITECTURE = Architecture(
    channels=3,
    heads=1,
    head_dim=8,
    rope_axes=(4, 2, 2),
    framepack=FramePack(segment_frames=4, history_frames=(1, 2, 4)),
    memory=None,
    encoders=Encoders(prompt_bytes=16),
)


@dataclasses.dataclass(frozen=True)
class Repeats(Denoiser):
    """Flows exactly to the last segment of its history: right wherever motion has the period of a segment."""

    def condition(self, params, prompts, reference):
        return None

    def velocity(self, params, x_t, t, history, condition, memory):
        target = history.frames[:, -x_t.shape[1] :] + params["offset"]
        return (target - x_t) / jnp.maximum(1 - t, 1e-3).reshape(-1, 1, 1, 1, 1)

    def start(self, params, prompts, reference, total=0):
        memory = Memory(tokens=jnp.zeros((len(reference), 0, 8)), valid=jnp.zeros((len(reference), 0), bool))
        return empty_history(reference, self.architecture.framepack, total), memory

    def update_memory(self, params, memory, segment):
        return memory


SAMPLER = Euler(steps=2)
STEP = 0.5  # of its last step, all that remains of an offset after velocities that lead to the target


def params(offset=0.0):
    return {"offset": jnp.float32(offset)}


def test_a_model_that_repeats_its_history_recalls_within_reach_only():
    result = evaluate_recall(Repeats(ARCHITECTURE), SAMPLER, params(), World(), gaps=(0, 2), clips_per_gap=256, seed=1)
    near, far = result.report["gaps"]
    assert near["gap"] == 0 and near["rate"] == 1.0 and not near["beyond_reach"]
    assert far["beyond_reach"] and far["ci95"][0] <= 1 / 16 <= far["ci95"][1]
    assert result.report["leak_test"]["passed"]
    np.testing.assert_allclose(result.generated[0], result.truth[0][-4:], atol=1e-5)
    assert len(result.truth[2]) == 1 + 4 * 4


def test_the_same_seed_gives_the_same_clips_and_another_gives_others():
    def decoded(seed):
        args = (Repeats(ARCHITECTURE), SAMPLER, params(), World())
        return evaluate_recall(*args, gaps=(0,), clips_per_gap=2, seed=seed).truth[0]

    np.testing.assert_array_equal(decoded(1), decoded(1))
    assert not np.array_equal(decoded(1), decoded(2))


def test_recall_needs_a_scene_with_a_return_and_drift_one_without():
    with pytest.raises(InputError, match="D1"):
        evaluate_recall(Repeats(ARCHITECTURE), SAMPLER, params(), World(scene="D1"), gaps=(0,))
    with pytest.raises(InputError, match="D1"):
        evaluate_drift(Repeats(ARCHITECTURE), SAMPLER, params(), World(), segments=4)


def test_a_perfect_copy_does_not_drift_and_a_biased_one_does_by_its_bias():
    world = World(scene="D1")

    def report(offset):
        return evaluate_drift(
            Repeats(ARCHITECTURE), SAMPLER, params(offset), world, segments=6, given=2, clips=8, seed=0
        ).report

    perfect = report(0.0)
    assert abs(perfect["slope"]["per_minute"]) < 1e-6 and perfect["identity"][-1]["mean"] == 1.0
    assert abs(perfect["exposure_gap"][-1]["mean"]) < 1e-6
    assert perfect["off_manifold_by_segment"][-1]["mean"] < 1e-9
    biased = report(0.05)
    # On own history the offset adds up: segment n is off by (n + 1)·0.05; on true history it stays 0.05.
    for n, row in enumerate(biased["off_manifold_by_segment"][:3]):
        assert row["mean"] == pytest.approx((0.05 * (n + 1)) ** 2, rel=0.05)
    gap = [row["mean"] for row in biased["exposure_gap"]]
    assert gap[0] == pytest.approx(0.0, abs=1e-6) and gap[2] == pytest.approx(0.15 - 0.05, rel=0.05)
    assert biased["slope"]["ci95"][0] > 0
    assert jax.tree.all(jax.tree.map(lambda x: not isinstance(x, np.ndarray), biased))


def test_drift_in_parts_is_drift_at_once_and_can_leave_the_true_history_out(monkeypatch):
    args = (Repeats(ARCHITECTURE), SAMPLER, params(0.05), World(scene="D1"))

    def measured(**more):
        return evaluate_drift(*args, segments=3, clips=5, **more)

    whole = measured()  # what it draws does not depend on the noise
    monkeypatch.setattr("mpjax.evaluation.recall.CHUNK", 2)
    parts = measured()
    numbers = [[x for x in jax.tree.leaves(r.report) if not isinstance(x, str)] for r in (whole, parts)]
    np.testing.assert_allclose(*numbers, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(whole.generated, parts.generated, atol=1e-5)
    alone = measured(true_history=False).report
    assert alone.pop("exposure_gap") is None and parts.report.pop("exposure_gap")
    assert alone == parts.report


@dataclasses.dataclass(frozen=True)
class Vanished(Repeats):
    """Draws the empty background, which the reference frame shows."""

    def velocity(self, params, x_t, t, history, condition, memory):
        return (history.reference - x_t) / jnp.maximum(1 - t, 1e-3).reshape(-1, 1, 1, 1, 1)


def test_a_toy_that_is_gone_is_seen():
    report = evaluate_drift(
        Vanished(ARCHITECTURE), SAMPLER, params(), World(scene="D1"), segments=2, given=1, clips=8
    ).report
    # The least toy, a triangle or a cross, is some way from every background.
    assert report["off_manifold_by_segment"][-1]["mean"] > 0.05


@dataclasses.dataclass(frozen=True)
class Prompted(Repeats):
    """Adds the offset only under a prompt, so that guidance of scale s adds it s times."""

    def condition(self, params, prompts, reference):
        some = (prompts > 0).any(1, keepdims=True)
        return Condition(text=some, text_mask=some, pooled=some * params["offset"], image=some)

    def velocity(self, params, x_t, t, history, condition, memory):
        plain = super().velocity({"offset": 0.0}, x_t, t, history, condition, memory)
        return plain + condition.pooled.reshape(-1, 1, 1, 1, 1)


def test_guidance_reaches_what_is_evaluated():
    args = (Prompted(ARCHITECTURE), SAMPLER, params(0.05))
    for guidance, offset in ((UNGUIDED, 0.05), (ClassifierFree(scale=3.0), 0.15)):
        recall = evaluate_recall(*args, World(), gaps=(0,), clips_per_gap=1, classifier_free=guidance)
        np.testing.assert_allclose(recall.generated[0] - recall.truth[0][-4:], STEP * offset, atol=1e-5)
        drift = evaluate_drift(*args, World(scene="D1"), segments=2, clips=2, classifier_free=guidance)
        np.testing.assert_allclose((drift.generated - drift.truth)[:4], STEP * offset, atol=1e-5)


def test_turning_balls_and_hands_keep_the_metrics_that_hold():
    args = (Repeats(ARCHITECTURE), SAMPLER, params())
    turning = evaluate_drift(*args, World(scene="D1", turn=0.2), segments=3, clips=8).report
    assert turning["motion"]["position_error"] is None and turning["contrast"]["psnr"] is None
    assert turning["off_manifold_by_segment"][-1]["mean"] < 1e-9 and "obedience" not in turning
    hand = evaluate_drift(*args, World(scene="D2"), segments=6, clips=32).report
    # It repeats what it saw: it goes on at the old pace, and never hears of a new one.
    assert hand["obedience"]["latency_frames"]["mean"] > 1 and 0.3 < hand["obedience"]["heading_error"]["mean"] < 0.7
    assert hand["motion"]["position_error"] is not None and hand["identity"][-1]["mean"] == 1.0
