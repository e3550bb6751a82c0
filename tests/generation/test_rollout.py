import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax import codecs
from mpjax.conditioning.tokens import encode_prompt
from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Teacher
from mpjax.diffusion.samplers import Euler, UniPC
from mpjax.errors import InputError
from mpjax.generation import rollout as module
from mpjax.generation.rollout import Rollout
from mpjax.generation.sampling import SamplingRequest, plan_sampling
from mpjax.generation.state import load_state, save_state
from mpjax.models.architecture import FramePack
from mpjax.models.encoders import Condition
from mpjax.models.framepack import frame_indices
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser
from mpjax.models.teacache import TeaCache
from mpjax.training.gradients import Objective, chain_loss
from tests.tiny import tiny_architecture, tiny_batch

PROMPTS = [encode_prompt(prompt, 16) for prompt in ("a toy enters", "a ball bounces", "")]
REFERENCE = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 3)).astype(np.float32)


def test_a_segment_is_euler_steps_from_the_noise_of_its_number(trained, rollout):
    """Against the definition: numpy steps over the bare network, history shifted by hand."""
    experiment = trained.run.experiment
    denoiser, times = Denoiser(experiment.model), [0.0, 0.5, 1.0]

    @jax.jit
    def velocity(params, x, t, history, memory, prompt):
        condition = denoiser.condition(params, prompt, history.reference)
        return denoiser.velocity(params, x, t, history, condition, memory)

    first, state = rollout.start(PROMPTS[0], REFERENCE, seed=9)
    np.testing.assert_allclose(first, np.round((REFERENCE + 1) * 127.5), atol=1)
    past = np.concatenate([np.zeros((6, 8, 8, 3)), REFERENCE])
    for n, prompt in enumerate(PROMPTS):
        np.testing.assert_allclose(state.video.history.frames[0], past[-7:], atol=2e-4)
        x = jax.random.normal(jax.random.fold_in(jax.random.key(9), n), (1, 4, 8, 8, 3))
        for t, after in itertools.pairwise(times):
            v = velocity(trained.params, x, jnp.full(1, t), state.video.history, state.video.memory, prompt[None])
            x = np.asarray(x) + np.float32(after - t) * np.asarray(v)
        frames, state = rollout.generate(state, prompt)
        expected = np.round((np.clip(x[0], -1, 1) + 1) * 127.5)
        assert np.abs(frames.astype(int) - expected).max() <= 1
        assert frames.std() > 5
        past = np.concatenate([past, x[0]])
        assert int(state.segment) == int(state.video.history.segments) == n + 1


def test_a_video_from_its_end_has_no_segment_before_the_first(monkeypatch):
    """A network of no parameters that returns the noise: what is counted are segments."""
    pack = FramePack(segment_frames=2, history_frames=(1, 2, 4), rope_layout="framepack_f0")
    denoiser = Denoiser(tiny_architecture(framepack=pack, memory=None, encoders=None))
    monkeypatch.setattr(module, "sample_segment", lambda *arguments: arguments[5])
    backwards = Rollout(denoiser, Euler(), codecs.create("identity"), {})
    one = np.zeros((1, 1), np.float32)
    prompt = Condition(text=one, text_mask=one > 0, pooled=one[0], image=one)
    _, state = backwards.start(prompt, REFERENCE, seed=0, segments=2)
    _, state = backwards.generate(state, prompt)
    _, state = backwards.give(state, np.zeros((2, 8, 8, 3), np.float32))
    assert backwards.finish(state).shape == (5, 8, 8, 3)
    for call in (lambda: backwards.generate(state, prompt), lambda: backwards.give(state, REFERENCE)):
        with pytest.raises(InputError, match=r"all 2 segments exist, .* start one with more segments"):
            call()


def test_one_trace_serves_all_segments_prompts_videos_and_loaded_states(trained, monkeypatch, tmp_path):
    count = 0

    def sample(denoiser, sampler, params, state, prompts, noise, *guidance):
        nonlocal count
        count += 1
        return noise

    monkeypatch.setattr(module, "sample_segment", sample)
    fresh = Rollout.of(trained)
    for seed in (0, 1):
        _, state = fresh.start(PROMPTS[seed], REFERENCE, seed)
        for prompt in PROMPTS:
            _, state = fresh.generate(state, prompt)
            save_state(tmp_path / "s", state, {})
            state, _ = load_state(tmp_path / "s")
        _, state = fresh.give(state, np.zeros((4, 8, 8, 3), np.float32))
        fresh.generate(state, PROMPTS[0])
    assert count == 1


def test_guidance_leads_away_from_the_negative_prompt(trained, rollout):
    """From one state, so that only the last segment differs: a negative equal to the prompt leads nowhere."""
    plan = plan_sampling(trained.run, SamplingRequest(guidance=2.0))
    guided = Rollout.of(trained, plan)
    _, state = rollout.give(rollout.start(PROMPTS[0], REFERENCE, seed=3)[1], np.repeat(REFERENCE, 4, 0))

    def drawn(rollout, prompt):
        return np.asarray(rollout.generate(state, prompt, PROMPTS[0])[1].video.history.frames[0, -4:])

    np.testing.assert_allclose(drawn(guided, PROMPTS[0]), drawn(rollout, PROMPTS[0]), atol=1e-4)
    for prompt in PROMPTS[1:]:
        assert np.abs(drawn(guided, prompt) - drawn(rollout, prompt)).max() > 0.01


def test_a_cache_leaves_out_what_lies_between_first_and_last_step(trained, rollout):
    """With two steps there is nothing between."""
    _, state = rollout.start(PROMPTS[0], REFERENCE, seed=3)

    def drawn(**fields):
        fresh = Rollout.of(trained, plan_sampling(trained.run, SamplingRequest(**fields)))
        return np.asarray(fresh.generate(state, PROMPTS[0])[1].video.history.frames[0, -4:])

    np.testing.assert_allclose(drawn(teacache=1e9), drawn(), atol=1e-5)
    assert np.abs(drawn(teacache=1e9, steps=6) - drawn(steps=6)).max() > 1e-3


def test_the_sampling_of_a_plan_reaches_network_and_sampler(trained, rollout, monkeypatch):
    seen = {}

    def sample(denoiser, sampler, params, state, prompts, noise, classifier_free, negative, cache):
        seen.update(locals())
        return noise * 0 + negative.sum()

    monkeypatch.setattr(module, "sample_segment", sample)
    plan = plan_sampling(
        trained.run, SamplingRequest(sampler="unipc", steps=5, shift="dynamic", guidance=3.0, teacache=0.2)
    )
    _, state = rollout.start(PROMPTS[0], REFERENCE, seed=0)
    for negative in ("", "a ball bounces"):
        plan = dataclasses.replace(plan, distilled_guidance=6.0)
        opposite = encode_prompt(negative, 16)
        after = Rollout.of(trained, plan).generate(state, PROMPTS[0], opposite)[1]
        assert float(after.video.history.frames[0, -1].max()) == opposite.sum()
        assert seen["sampler"] == plan.sampler == UniPC(steps=5, shift=None)
        assert seen["cache"] == TeaCache(threshold=0.2)
        assert seen["classifier_free"] == plan.classifier_free and seen["denoiser"].guidance == 6.0


@dataclasses.dataclass(frozen=True)
class Recorder(Denoiser):
    """The real history around parts that are cheap, exact, and remember every prompt and every segment in its order."""

    seen: list = dataclasses.field(default_factory=list, hash=False, compare=False)

    def condition(self, params, prompts, reference):
        return Condition(text=prompts * 3, text_mask=prompts > 0, pooled=prompts[:, :1], image=reference * 2)

    def init_memory(self, params, prompts, reference):
        return Memory(tokens=prompts[..., None].repeat(12, -1) * 1.0, valid=prompts > 0)

    def update_memory(self, params, memory, segment):
        tokens = memory.tokens / 2 + segment.reshape(*memory.tokens.shape)
        return memory.taking(tokens, jnp.roll(memory.valid, 1, 1))

    def velocity(self, params, x_t, t, history, condition, memory):
        indices = frame_indices(history, self.architecture.framepack)
        arrays = jax.tree.leaves((history, memory, indices, condition))
        jax.debug.callback(lambda *values: self.seen.append([np.array(x) for x in values]), *arrays)
        return x_t * 0


def test_training_and_generation_feed_the_network_the_same_bits():
    """The same video through training's chain and through the rollout, a prompt of its own in every segment."""
    segments = 4
    batch = tiny_batch(tiny_architecture(), batch=1, segments=segments)
    training, generation = Recorder(tiny_architecture()), Recorder(tiny_architecture())
    objective = Objective(denoiser=training, forcing=Teacher(), time=TimeDistribution())
    jax.jit(lambda batch: chain_loss(objective, {}, batch, jax.random.key(0)))(batch)
    rollout = Rollout(generation, Euler(steps=1), codecs.create("identity"), {})
    _, state = rollout.start(np.asarray(batch.prompts[0, 0]), np.asarray(batch.reference[0]), seed=0)
    for n in range(segments):
        rollout.generate(state, np.asarray(batch.prompts[0, n]))
        _, state = rollout.give(state, np.asarray(batch.segments[0, n]))
    jax.effects_barrier()
    for recorder in (training, generation):
        recorder.seen.sort(key=lambda values: int(values[2]))  # callbacks come in any order
    assert (
        [int(values[2]) for values in training.seen] == [int(values[2]) for values in generation.seen] == [0, 1, 2, 3]
    )
    for n in range(segments):
        assert len(training.seen[n]) == len(generation.seen[n]) == 13
        for a, b in zip(training.seen[n], generation.seen[n], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    changed = [(a != b).any() for a, b in zip(training.seen[2], training.seen[3], strict=True)]
    # Frames, count, ψ and its count, both positions, text: no constant is compared. Leaf 3 is `total`.
    assert all(changed[i] for i in (1, 2, 4, 6, 7, 8, 9))


@pytest.mark.parametrize("time_factor", [1, 4])
def test_streamed_frames_are_the_decoding_of_all_latents(trained, rollout, monkeypatch, time_factor):
    codec = codecs.create("dct", time_factor=time_factor, space_factor=2, channels=3)
    monkeypatch.setattr(rollout, "codec", codec)
    latents = np.random.default_rng(1).normal(size=(1, 13, 8, 8, 3)).astype(np.float32) / 4
    first, state = rollout.start(PROMPTS[0], latents[0, :1], seed=0)
    shown = [first]
    for n in range(3):
        frames, state = rollout.give(state, latents[0, 1 + 4 * n : 5 + 4 * n])
        assert len(frames) == rollout.segment_frames == 4 * time_factor
        shown.append(frames)
    whole = np.round((codec.decode(latents)[0] + 1) * 127.5)
    np.testing.assert_array_equal(np.concatenate(shown), whole)
