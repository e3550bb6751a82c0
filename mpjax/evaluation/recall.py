"""Recall of a trained model on RecallWorld: true history up to the return, then one segment of the model's own."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.data.batch import Batch
from mpjax.data.recallworld.batches import collect
from mpjax.data.recallworld.clips import Clip, sample_clip
from mpjax.data.recallworld.decode import decode_position, decode_visit
from mpjax.data.recallworld.render import render_background
from mpjax.data.recallworld.world import World
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Sampler
from mpjax.errors import InputError
from mpjax.evaluation.controls import Control, NoControl
from mpjax.evaluation.drift_metrics import psnr
from mpjax.evaluation.recall_metrics import recall_report
from mpjax.evaluation.return_metrics import by_gap, reentry_error, timing_error
from mpjax.models.autoregressive import append_segment, sample_segment, start_video
from mpjax.models.memorypack import Denoiser
from mpjax.progress import Progress

# A return whose frames lie further than this from every toy (RMS over the frame, range 2) shows no toy at all.
HALLUCINATION_RMS = 0.5
NO_CONTROL = NoControl()
CHUNK = 128
CHUNK_BYTES = 1 << 28  # of the video of a chunk


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallResult:
    """What `evaluate_recall` found.

    Attributes:
        report: `recall_metrics.recall_report` with {position, timing, psnr}, each by gap (pixels, frames, dB; `timing`
            is None unless the toy moves on while it is hidden), and `control`: {kind, expects, met}. JSON-able.
        truth: true video of the first clip at each gap, up to the return's end, `[1 + n·f, H, W, 3]`.
        generated: the generated return of the same clips, `[f, H, W, 3]`.
    """

    report: dict
    truth: dict[int, np.ndarray]
    generated: dict[int, np.ndarray]


@functools.partial(jax.jit, static_argnums=(0, 1, 6, 7))
def _return_segment(
    denoiser: Denoiser,
    sampler: Sampler,
    params: dict,
    batch: Batch,
    count: jax.Array,
    key: jax.Array,
    classifier_free: ClassifierFree,
    control: Control,
) -> jax.Array:
    """Segment `count` `[b, f, h, w, c]`, drawn after the true segments before it; `count` is traced, so one compile."""

    def given(state, inputs):
        segment, n = inputs
        state = control.before(state, start, n, count)
        append = functools.partial(append_segment, denoiser, params)
        return jax.lax.cond(n < count, append, lambda state, _: state, state, segment), None

    start = control.start(start_video(denoiser, params, batch.first_prompts, batch.reference))
    numbers = jnp.arange(batch.segments.shape[1])
    state, _ = jax.lax.scan(given, start, (jnp.swapaxes(batch.segments, 0, 1), numbers))
    noise = jax.random.normal(key, batch.segments[:, 0].shape)
    prompts = control.prompts(batch.prompts_of(count))
    return sample_segment(denoiser, sampler, params, state, prompts, noise, classifier_free)


def evaluate_recall(
    denoiser: Denoiser,
    sampler: Sampler,
    params: dict,
    world: World,
    *,
    gaps: Sequence[int],
    clips_per_gap: int = 256,
    seed: int = 0,
    classifier_free: ClassifierFree = UNGUIDED,
    control: Control = NO_CONTROL,
    say: Callable[[str], None] | None = None,
) -> RecallResult:
    """Does the right toy come back, by number of fully hidden segments?

    Args:
        denoiser, sampler, params: the model (EMA weights).
        world: a scene with a return, R1 to R6.
        gaps: hidden segments between the last that shows the toy and its return.
        clips_per_gap: held-out clips for each gap.
        seed: of the clips and of the noise; every model evaluated with one seed sees the same clips and noise.
        classifier_free: guidance away from the empty prompt.
        control: what is changed to see whether the known effect follows (`controls`).
        say: is told how far it is; None is silent.

    Raises:
        InputError: the world has no return, there is no gap, or the control does not fit.
    """
    if not world.has_return:
        raise InputError(f"world.scene is {world.scene!r}, which has no return: recall needs one of R1 to R6")
    if not gaps or min(gaps) < 0 or clips_per_gap < 1:
        raise InputError(f"gaps is {list(gaps)} with {clips_per_gap} clips: give one gap or more, from 0, and a clip")
    world = control.world(world)
    gaps = control.gaps(world, gaps)
    segments = world.entries + max(gaps) + 1
    chunk = chunk_size(world, segments, clips_per_gap)
    progress = Progress(0, len(gaps) * clips_per_gap, say or (lambda line: None))
    returns: list[_Returns] = []
    examples: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for gap in gaps:
        clips = [sample_clip(world, (seed * 1000 + gap) * 1_000_000 + i, segments, gap) for i in range(clips_per_gap)]
        key = jax.random.fold_in(jax.random.key(seed), gap)
        for start in range(0, clips_per_gap, chunk):
            some = clips[start : start + chunk]
            padded = some + [some[-1]] * (chunk - len(some))  # one shape, one compile
            batch = collect(world, padded, np.zeros((len(padded), segments), np.float32))
            draw = functools.partial(_return_segment, denoiser, sampler, params, batch, jnp.int32(world.entries + gap))
            frames = np.asarray(draw(jax.random.fold_in(key, start), classifier_free, control))[: len(some)]
            truth = batch.segments[: len(some), world.entries + gap]
            returns.append(_measure(world, some, frames, truth))
            if gap not in examples:
                shown = [batch.reference[0], *batch.segments[0, : world.entries + gap + 1]]
                examples[gap] = (np.concatenate(shown), frames[0])
            progress.update(sum(len(part.gap) for part in returns), f"gap {gap}")
    return RecallResult(
        report=_report(world, returns, control, seed),
        truth={gap: video for gap, (video, _) in examples.items()},
        generated={gap: frames for gap, (_, frames) in examples.items()},
    )


def chunk_size(world: World, segments: int, clips: int) -> int:
    """How many clips of `segments` are evaluated at once: as many as memory allows, at most those there are."""
    values = 3 * segments * world.segment_frames * world.frame_size**2
    return max(1, min(CHUNK, clips, CHUNK_BYTES // (4 * values)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Returns:
    """What some generated returns show, one row a clip."""

    gap: np.ndarray
    identity: np.ndarray
    truth: np.ndarray
    other: np.ndarray
    residual: np.ndarray
    position_error: np.ndarray
    timing_error: np.ndarray
    psnr: np.ndarray


def _measure(world: World, clips: list[Clip], frames: np.ndarray, truth: np.ndarray) -> _Returns:
    """Decodes returns `[n, f, H, W, 3]` of clips that share a gap."""
    n, f, *size = frames.shape
    first = 1 + (world.entries + (clips[0].gap or 0)) * f
    during = slice(first, first + f)
    background = render_background(world, clips)[:, during]
    places, seen = (np.stack(x)[:, during] for x in zip(*(clip.target_shown for clip in clips), strict=True))
    identity, residual = decode_visit(world, frames, background, seen)
    position, _ = decode_position(
        world, frames.reshape(-1, *size), background.reshape(-1, *size), identity=np.repeat(identity, f)
    )
    position = position.reshape(n, f, 2)
    others = [next((i for i in clip.identities if i != clip.target_identity), -1) for clip in clips]
    return _Returns(
        gap=np.asarray([clip.gap for clip in clips]),
        identity=identity,
        truth=np.asarray([clip.target_identity for clip in clips]),
        other=np.asarray(others),
        residual=residual,
        position_error=reentry_error(position, places, seen),
        timing_error=timing_error(world, position, places, seen),
        psnr=psnr(frames, truth).mean(axis=1),
    )


def _report(world: World, parts: list[_Returns], control: Control, seed: int) -> dict:
    rows = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in dataclasses.fields(_Returns)
    }
    report = recall_report(
        rows["identity"],
        rows["truth"],
        rows["gap"],
        colours=world.colours,
        shapes=world.shapes,
        beyond_reach=world.beyond_reach,
        residual=rows["residual"],
        hallucination_threshold=HALLUCINATION_RMS**2,
        other=rows["other"] if world.toys == 2 else None,
    )
    timing = by_gap(rows["timing_error"], rows["gap"], seed=seed) if world.play.hidden_motion else None
    return {
        **report,
        "position": by_gap(rows["position_error"], rows["gap"], seed=seed),
        "timing": timing,
        "psnr": by_gap(rows["psnr"], rows["gap"], seed=seed),
        "control": {"kind": control.kind, "expects": control.expects, "met": control.met(report)},
    }
