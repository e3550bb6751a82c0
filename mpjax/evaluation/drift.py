"""Drift of a trained model on RecallWorld D1 or D2: a long rollout on its own history, every frame decoded exactly."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.data.batch import Batch
from mpjax.data.recallworld.batches import collect
from mpjax.data.recallworld.clips import sample_clip
from mpjax.data.recallworld.decode import decode_exposure, decode_toys, off_manifold
from mpjax.data.recallworld.render import render_background
from mpjax.data.recallworld.world import World
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Sampler
from mpjax.errors import InputError
from mpjax.evaluation.drift_metrics import drift_report, motion, psnr, seam_error
from mpjax.evaluation.obedience_metrics import obedience
from mpjax.models.autoregressive import append_segment, sample_segment, start_video
from mpjax.models.memorypack import Denoiser

SURVIVAL_THRESHOLD = 0.1  # off-manifold energy of a frame whose toy has melted (RMS .32 of a range of 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftResult:
    """What `evaluate_drift` found.

    Attributes:
        report: `drift_metrics.drift_report` with `motion` and `seam`, and in D2 `obedience`
            (`obedience_metrics.obedience`), JSON-able. With `world.turn` the truth is one future of many: what compares
            frame by frame with it, PSNR and the position error, is None.
        truth, generated: all frames after the given ones of the first clip, `[t, H, W, 3]`.
    """

    report: dict
    truth: np.ndarray
    generated: np.ndarray


@functools.partial(jax.jit, static_argnums=(0, 1, 5, 6))
def _rollout(
    denoiser: Denoiser,
    sampler: Sampler,
    params: dict,
    batch: Batch,
    key: jax.Array,
    given: int,
    classifier_free: ClassifierFree,
) -> tuple[jax.Array, jax.Array]:
    """Every segment after the given ones, on own and on true history, `[b, s − given, f, h, w, c]` each."""

    def segment(states, inputs):
        own, true = states
        x_1, n = inputs
        prompts = batch.prompts_of(given + n)
        noise = jax.random.normal(jax.random.fold_in(key, n), x_1.shape)
        draw = functools.partial(sample_segment, denoiser, sampler, params, classifier_free=classifier_free)
        on_own, on_true = draw(own, prompts, noise), draw(true, prompts, noise)
        append = functools.partial(append_segment, denoiser, params)
        return (append(own, on_own), append(true, x_1)), (on_own, on_true)

    state = start_video(denoiser, params, batch.first_prompts, batch.reference)
    for n in range(given):
        state = append_segment(denoiser, params, state, batch.segments[:, n])
    segments = batch.segments.swapaxes(0, 1)[given:]
    _, (own, true) = jax.lax.scan(segment, (state, state), (segments, jnp.arange(len(segments))))
    return jnp.swapaxes(own, 0, 1), jnp.swapaxes(true, 0, 1)


def evaluate_drift(
    denoiser: Denoiser,
    sampler: Sampler,
    params: dict,
    world: World,
    *,
    segments: int,
    given: int = 2,
    clips: int = 64,
    seed: int = 0,
    classifier_free: ClassifierFree = UNGUIDED,
) -> DriftResult:
    """How does the picture decay over `segments` generated segments, and how much of it is exposure bias?

    Args:
        denoiser, sampler, params: the model (EMA weights).
        world: scene D1 with one ball, or D2.
        segments: generated segments, after the given ones.
        given: true segments before them.
        clips: held-out clips.
        seed: of clips and noise, equal for every model compared.
        classifier_free: guidance away from the empty prompt.

    Raises:
        InputError: another scene, or several balls.
    """
    if world.has_return or world.toys != 1:
        raise InputError(
            f"world is {world.scene} with {world.toys} toys: drift is measured on D2, or on D1 with one ball"
        )
    if segments < 1 or given < 1 or clips < 1:
        raise InputError(f"segments is {segments}, given {given} and clips {clips}: use 1 or more")
    states = [sample_clip(world, seed * 1_000_000 + i, given + segments) for i in range(clips)]
    batch = collect(world, states, np.zeros((clips, given + segments), np.float32))
    own, true = _rollout(denoiser, sampler, params, batch, jax.random.key(seed), given, classifier_free)
    first = 1 + given * world.segment_frames
    background = render_background(world, states)[:, first:]
    n, t, *size = background.shape
    flat_background = background.reshape(-1, *size)
    truth = np.asarray(batch.segments)[:, given:].reshape(n, t, *size)
    frames, on_true = (np.asarray(x).reshape(n, t, *size) for x in (own, true))

    def energy(video: np.ndarray) -> np.ndarray:
        return off_manifold(world, video.reshape(-1, *size), flat_background).reshape(n, t)

    toys = decode_toys(world, frames.reshape(-1, *size), flat_background)
    true_toys = decode_toys(world, truth.reshape(-1, *size), flat_background)
    gain, _ = decode_exposure(frames.reshape(-1, *size), flat_background)
    report = drift_report(
        off_manifold=energy(frames),
        gain=gain.reshape(n, t, 3),
        psnr=psnr(frames, truth),
        decoded=toys.identity.reshape(n, t, -1),
        identities=np.asarray([state.identities for state in states]),
        fps=world.fps,
        segment_frames=world.segment_frames,
        threshold=SURVIVAL_THRESHOLD,
        true_history=energy(on_true),
        seed=seed,
    )
    report["motion"] = motion(
        toys.position[:, 0].reshape(n, t, 2),
        true_toys.position[:, 0].reshape(n, t, 2),
        segment_frames=world.segment_frames,
        seed=seed,
    )
    if world.turn:
        report["motion"]["position_error"] = report["contrast"]["psnr"] = None
    if world.play.commands:
        # From the last given frame on, so that the step into the first generated one counts.
        shown = np.stack([state.positions[0, first - 1] for state in states])
        positions = np.concatenate([shown[:, None], toys.position[:, 0].reshape(n, t, 2)], axis=1)
        halves = [[world.play.commands[prompt] for prompt in state.prompts[given:]] for state in states]
        before = [world.play.commands[state.prompts[given - 1]] for state in states]
        report["obedience"] = obedience(world, positions, np.asarray(halves), np.asarray(before), seed=seed)
    report["seam"] = seam_error(frames, segment_frames=world.segment_frames, seed=seed)
    report["clips"], report["given_segments"], report["generated_segments"] = clips, given, segments
    return DriftResult(report=report, truth=truth[0], generated=frames[0])
