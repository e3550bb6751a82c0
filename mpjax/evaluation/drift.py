"""Drift of a trained model on RecallWorld D1 or D2: a long rollout on its own history, every frame decoded exactly."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.data.batch import Batch
from mpjax.data.recallworld.batches import collect
from mpjax.data.recallworld.clips import Clip, sample_clip
from mpjax.data.recallworld.decode import decode_exposure, decode_toys, off_manifold, off_manifold_of_toy
from mpjax.data.recallworld.render import render_background
from mpjax.data.recallworld.world import World
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Sampler
from mpjax.errors import InputError
from mpjax.evaluation.drift_metrics import drift_report, motion, psnr, seam_jumps, seam_report
from mpjax.evaluation.obedience_metrics import obedience
from mpjax.evaluation.recall import chunk_size
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


@functools.partial(jax.jit, static_argnums=(0, 1, 5, 6, 7))
def _rollout(
    denoiser: Denoiser,
    sampler: Sampler,
    params: dict,
    batch: Batch,
    key: jax.Array,
    given: int,
    classifier_free: ClassifierFree,
    both: bool,
) -> tuple[jax.Array, ...]:
    """Every segment after the given ones on own and, if `both`, on true history, `[b, s − given, f, h, w, c]` each."""

    def segment(states, inputs):
        x_1, n = inputs
        prompts = batch.prompts_of(given + n)
        noise = jax.random.normal(jax.random.fold_in(key, n), x_1.shape)
        draw = functools.partial(sample_segment, denoiser, sampler, params, classifier_free=classifier_free)
        drawn = tuple(draw(state, prompts, noise) for state in states)
        pasts = (drawn[0], x_1)[: len(states)]
        states = tuple(append_segment(denoiser, params, *pair) for pair in zip(states, pasts, strict=True))
        return states, drawn

    state = start_video(denoiser, params, batch.first_prompts, batch.reference)
    for n in range(given):
        state = append_segment(denoiser, params, state, batch.segments[:, n])
    segments = batch.segments.swapaxes(0, 1)[given:]
    states = (state, state) if both else (state,)
    _, drawn = jax.lax.scan(segment, states, (segments, jnp.arange(len(segments))))
    return tuple(jnp.swapaxes(x, 0, 1) for x in drawn)


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
    true_history: bool = True,
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
        true_history: whether to measure the exposure gap, which takes a second rollout; without, it is None.

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
    chunk, key = chunk_size(world, given + segments, clips), jax.random.key(seed)
    parts: list[_Rollouts] = []
    for start in range(0, clips, chunk):
        some = states[start : start + chunk]
        padded = some + [some[-1]] * (chunk - len(some))  # one shape, one compile
        batch = collect(world, padded, np.zeros((chunk, given + segments), np.float32))
        own_key = jax.random.fold_in(key, start)
        drawn = _rollout(denoiser, sampler, params, batch, own_key, given, classifier_free, true_history)
        videos = [np.asarray(x).reshape(chunk, -1, *x.shape[3:])[: len(some)] for x in drawn]
        truth = batch.segments[: len(some), given:].reshape(videos[0].shape)
        if not parts:
            example = truth[0], videos[0][0]
        parts.append(_measure(world, some, truth, *videos))
    report = _report(world, states, parts, given, seed)
    report["clips"], report["given_segments"], report["generated_segments"] = clips, given, segments
    return DriftResult(report=report, truth=example[0], generated=example[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rollouts:
    """What some rollouts show: frame by frame `[n, t, …]`, and `jumps` `[n, 2]`.

    Attributes:
        off_manifold: R.
        own_toy: R where only the clip's own toy is valid.
        true_history: the same on true history; of no frame without.
        gain, psnr, identity, position: see `drift_report` and `motion`.
        jumps: of `seam_jumps`.
    """

    off_manifold: np.ndarray
    own_toy: np.ndarray
    true_history: np.ndarray
    gain: np.ndarray
    psnr: np.ndarray
    identity: np.ndarray
    position: np.ndarray
    jumps: np.ndarray


def _measure(
    world: World, states: list[Clip], truth: np.ndarray, frames: np.ndarray, on_true: np.ndarray | None = None
) -> _Rollouts:
    """Decodes the generated frames `[n, t, H, W, 3]` of clips; the truth is of the same shape."""
    n, t, *size = frames.shape
    background = render_background(world, states)[:, -t:].reshape(-1, *size)
    flat = frames.reshape(-1, *size)
    toys = decode_toys(world, flat, background)
    own = np.repeat([state.identities[0] for state in states], t)
    gain, _ = decode_exposure(flat, background)
    energy = np.zeros((n, 0))
    if on_true is not None:
        energy = off_manifold_of_toy(world, on_true.reshape(-1, *size), background, own).reshape(n, t)
    return _Rollouts(
        off_manifold=off_manifold(world, flat, background).reshape(n, t),
        own_toy=off_manifold_of_toy(world, flat, background, own).reshape(n, t),
        true_history=energy,
        gain=gain.reshape(n, t, 3),
        psnr=psnr(frames, truth),
        identity=toys.identity.reshape(n, t, -1),
        position=toys.position[:, 0].reshape(n, t, 2),
        jumps=seam_jumps(frames, segment_frames=world.segment_frames),
    )


def _report(world: World, states: list[Clip], parts: list[_Rollouts], given: int, seed: int) -> dict:
    rows = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in dataclasses.fields(_Rollouts)
    }
    first = 1 + given * world.segment_frames
    report = drift_report(
        off_manifold=rows["off_manifold"],
        own_toy=rows["own_toy"],
        gain=rows["gain"],
        psnr=rows["psnr"],
        decoded=rows["identity"],
        identities=np.asarray([state.identities for state in states]),
        fps=world.fps,
        segment_frames=world.segment_frames,
        threshold=SURVIVAL_THRESHOLD,
        true_history=rows["true_history"] if rows["true_history"].size else None,
        seed=seed,
    )
    true_positions = np.stack([state.positions[0, first:] for state in states])
    report["motion"] = motion(rows["position"], true_positions, segment_frames=world.segment_frames, seed=seed)
    if world.turn:
        report["motion"]["position_error"] = report["contrast"]["psnr"] = None
    if world.play.commands:
        # From the last given frame on, so that the step into the first generated one counts.
        shown = np.stack([state.positions[0, first - 1] for state in states])
        positions = np.concatenate([shown[:, None], rows["position"]], axis=1)
        halves = [[world.play.commands[prompt] for prompt in state.prompts[given:]] for state in states]
        before = [world.play.commands[state.prompts[given - 1]] for state in states]
        report["obedience"] = obedience(world, positions, np.asarray(halves), np.asarray(before), seed=seed)
    report["seam"] = seam_report(rows["jumps"], seed=seed)
    return report
