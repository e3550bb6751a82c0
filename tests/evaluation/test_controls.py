"""Controls against models whose memory is known: each must bring about what it says, and nothing else."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.data.recallworld.world import World
from mpjax.diffusion.samplers import Euler
from mpjax.errors import InputError
from mpjax.evaluation.controls import CONTROLS, Anchor, MemoryReset, ShuffledPrompts, WithinReach, ZeroStart
from mpjax.evaluation.recall import evaluate_recall
from mpjax.evaluation.self_recall import evaluate_self_recall
from mpjax.models.architecture import Architecture, Encoders, FramePack
from mpjax.models.encoders import Condition
from mpjax.models.framepack import empty_history
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser

SAMPLER = Euler(steps=2)
BEYOND = {"gaps": (2,), "clips_per_gap": 256}


def architecture(frames=4):
    return Architecture(
        channels=3,
        heads=1,
        head_dim=8,
        rope_axes=(4, 2, 2),
        framepack=FramePack(segment_frames=frames, history_frames=(1, 2, 4)),
        memory=None,
        encoders=Encoders(prompt_bytes=24),
    )


@dataclasses.dataclass(frozen=True)
class Archive(Denoiser):
    """Keeps the first two segments as they are. Draws the second where the prompt has a C, else the first, times what
    the memory held at the start.
    """

    reverse: bool = False

    def condition(self, params, prompts, reference):
        second = (prompts == ord("C") + 1).any(1, keepdims=True)
        return Condition(text=second, text_mask=second, pooled=second, image=second)

    def start(self, params, prompts, reference, total=0):
        pack, (b, _, *size) = self.architecture.framepack, reference.shape
        width = pack.segment_frames * int(np.prod(size))
        memory = Memory(tokens=jnp.ones((b, 3, width)), valid=jnp.zeros((b, 3), bool))
        return empty_history(reference, pack, total), memory

    def update_memory(self, params, memory, segment):
        slot = memory.valid.sum(1)
        here = (jnp.arange(3) == slot[:, None]) & (slot[:, None] < 2)
        tokens = jnp.where(here[..., None], segment.reshape(len(segment), 1, -1), memory.tokens)
        return Memory(tokens=tokens, valid=memory.valid | here)

    def velocity(self, params, x_t, t, history, condition, memory):
        chosen = jnp.where(condition.pooled, memory.tokens[:, 1], memory.tokens[:, 0]) * memory.tokens[:, 2]
        target = chosen.reshape(x_t.shape)
        if self.reverse:
            target = target[:, ::-1]
        return (target - x_t) / jnp.maximum(1 - t, 1e-3).reshape(-1, 1, 1, 1, 1)


@dataclasses.dataclass(frozen=True)
class Anchored(Archive):
    """Sees nothing but the reference frame."""

    def velocity(self, params, x_t, t, history, condition, memory):
        target = jnp.broadcast_to(history.reference, x_t.shape)
        return (target - x_t) / jnp.maximum(1 - t, 1e-3).reshape(-1, 1, 1, 1, 1)


def evaluate(world, control=None, model=Archive, **changes):
    frames = world.segment_frames
    arguments = {**BEYOND, **changes, **({"control": control} if control else {})}
    return evaluate_recall(model(architecture(frames)), SAMPLER, {}, world, **arguments).report


def test_an_archive_recalls_until_its_memory_is_reset():
    kept = evaluate(World())
    assert kept["beyond_reach"]["rate"] == 1.0 and kept["leak_test"]["passed"] is False
    assert (kept["position"][0]["mean"] == 0.0 and kept["psnr"][0]["mean"] == 106 - 6.0206) or kept["psnr"][0][
        "mean"
    ] > 90
    assert kept["control"] == {"kind": "none", "expects": CONTROLS["none"].expects, "met": None}
    lost = evaluate(World(), MemoryReset())
    assert lost["leak_test"]["passed"] and lost["control"]["met"] is True
    assert evaluate(World(), MemoryReset(), gaps=(0,), clips_per_gap=64)["gaps"][0]["rate"] < 0.3
    # Before the toy enters a reset changes nothing; behind it, everything.
    assert evaluate(World(), MemoryReset(segment=0), clips_per_gap=32)["beyond_reach"]["rate"] == 1.0
    late = evaluate(World(), MemoryReset(segment=1), clips_per_gap=32)
    assert late["beyond_reach"]["rate"] < 0.4 and late["control"]["met"] is True
    broken = evaluate(World(), MemoryReset(segment=0), clips_per_gap=32)
    assert broken["control"]["met"] is False


def test_shuffled_prompts_leave_one_in_two():
    world = World(scene="R2", prompt_bytes=24)
    told = evaluate(world)
    assert told["beyond_reach"]["rate"] == 1.0 and told["slots"]["swap"]["rate"] == 0.0
    shuffled = evaluate(world, ShuffledPrompts())
    assert 0.4 < shuffled["beyond_reach"]["rate"] < 0.6
    assert shuffled["slots"]["either"]["rate"] == 1.0 and shuffled["control"]["met"] is True
    with pytest.raises(InputError, match="R2 or R6"):
        evaluate(World(), ShuffledPrompts())


def test_a_zero_start_takes_the_start_alone():
    assert evaluate(World(), ZeroStart())["leak_test"]["passed"]
    assert evaluate(World(), ZeroStart())["control"]["met"] is None


def test_an_anchor_is_enough_in_r1_and_stale_in_r3():
    blind = evaluate(World(), model=Anchored, gaps=(2, 3, 4))
    assert blind["leak_test"]["passed"], blind["leak_test"]
    anchored = evaluate(World(), Anchor(), model=Anchored)
    assert anchored["beyond_reach"]["rate"] == 1.0 and anchored["control"]["met"] is True
    stale = evaluate(World(scene="R3"), Anchor(), model=Anchored)
    assert stale["beyond_reach"]["rate"] == 0.0 and stale["slots"]["swap"]["rate"] == 1.0
    assert stale["attributes"]["shape"]["rate"] == 1.0 and stale["control"]["met"] is False


def test_within_reach_keeps_the_short_gaps():
    report = evaluate(World(), WithinReach(), gaps=(0, 1, 2, 8), clips_per_gap=16)
    assert [row["gap"] for row in report["gaps"]] == [0, 1]
    assert report["control"]["met"] is True and report["leak_test"]["passed"] is None
    with pytest.raises(InputError, match="beyond reach"):
        evaluate(World(), WithinReach(), gaps=(2, 8))


def test_r4_counts_the_frames_that_a_stopped_clock_is_late():
    world = World(scene="R4", frame_size=12, segment_frames=3)
    for gap in (0, 1, 2, 3):
        report = evaluate(world, gaps=(gap,), clips_per_gap=8)
        # The archive shows the entrance again, a whole number of frames too early in a round of 8.
        late = 3 * (1 + gap) % 8
        assert report["timing"] == [
            {"gap": gap, "n": 8, "mean": min(late, 8 - late), "ci95": [min(late, 8 - late)] * 2}
        ]
        assert report["gaps"][0]["rate"] == 1.0
    assert evaluate(World(), clips_per_gap=8)["timing"] is None


def test_r5_is_right_only_in_reverse():
    world = World(scene="R5")
    back = evaluate(world, model=lambda arch: Archive(arch, reverse=True), gaps=(0, 3), clips_per_gap=64)
    assert [row["rate"] for row in back["gaps"]] == [1.0, 1.0] and min(row["mean"] for row in back["psnr"]) > 90
    assert max(row["mean"] for row in back["position"]) == 0.0
    forth = evaluate(world, gaps=(0, 3), clips_per_gap=64)
    assert max(row["mean"] for row in forth["psnr"]) < 30


def test_r6_without_following_the_boxes_is_right_where_they_end_as_they_began():
    report = evaluate(World(scene="R6", prompt_bytes=24), gaps=(0,), clips_per_gap=64)
    # The archive's segment 0 shows both toys: whichever the decoder picks is one of the two.
    assert report["slots"]["either"]["rate"] > 0.9


def test_self_recall_of_a_blind_model_is_explained_by_its_own_shares():
    arguments = {"gaps": (0, 2), "clips_per_gap": 64}
    rows = evaluate_self_recall(Anchored(architecture()), SAMPLER, {}, World(), **arguments)
    assert [row["gap"] for row in rows] == [0, 2] and [row["beyond_reach"] for row in rows] == [False, True]
    for row in rows:
        # It draws the same empty picture twice, so it agrees with itself without having seen a toy.
        assert row["rate"] == 1.0 and row["n"] == 64 and 1 / 16 <= row["independent"] < 1
    for world in (World(scene="D1"), World(scene="R6")):
        with pytest.raises(InputError, match=world.scene):
            evaluate_self_recall(Anchored(architecture()), SAMPLER, {}, world, **arguments)
