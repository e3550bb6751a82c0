"""Recall of a trained model on RecallWorld: true history up to the return, then one segment of the model's own."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.data.batch import Batch
from mpjax.data.recallworld.batches import collect
from mpjax.data.recallworld.clips import sample_clip
from mpjax.data.recallworld.decode import decode_visit
from mpjax.data.recallworld.render import render_background
from mpjax.data.recallworld.world import World
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Sampler
from mpjax.errors import InputError
from mpjax.evaluation.recall_metrics import recall_report
from mpjax.models.autoregressive import append_segment, sample_segment, start_video
from mpjax.models.memorypack import Denoiser

# A return whose frames lie further than this from every toy (RMS over the frame, range 2) shows no toy at all.
HALLUCINATION_RMS = 0.5
CHUNK = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallResult:
    """What `evaluate_recall` found.

    Attributes:
        report: `recall_metrics.recall_report`, JSON-able.
        truth: true video of the first clip at each gap, up to the return's end, `[1 + n·f, H, W, 3]`.
        generated: the generated return of the same clips, `[f, H, W, 3]`.
    """

    report: dict
    truth: dict[int, np.ndarray]
    generated: dict[int, np.ndarray]


@functools.partial(jax.jit, static_argnums=(0, 1, 6))
def _return_segment(
    denoiser: Denoiser,
    sampler: Sampler,
    params: dict,
    batch: Batch,
    count: jax.Array,
    key: jax.Array,
    classifier_free: ClassifierFree,
) -> jax.Array:
    """Segment `count` `[b, f, h, w, c]`, drawn after the true segments before it; `count` is traced, so one compile."""

    def given(state, inputs):
        segment, n = inputs
        append = functools.partial(append_segment, denoiser, params)
        return jax.lax.cond(n < count, append, lambda state, _: state, state, segment), None

    state = start_video(denoiser, params, batch.first_prompts, batch.reference)
    numbers = jnp.arange(batch.segments.shape[1])
    state, _ = jax.lax.scan(given, state, (jnp.swapaxes(batch.segments, 0, 1), numbers))
    noise = jax.random.normal(key, batch.segments[:, 0].shape)
    return sample_segment(denoiser, sampler, params, state, batch.prompts_of(count), noise, classifier_free)


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
) -> RecallResult:
    """Does the right toy come back, by number of fully hidden segments?

    Args:
        denoiser, sampler, params: the model (EMA weights).
        world: scene R1 or R2.
        gaps: hidden segments between the last that shows the toy and its return.
        clips_per_gap: held-out clips for each gap.
        seed: of the clips and of the noise; every model evaluated with one seed sees the same clips and noise.
        classifier_free: guidance away from the empty prompt.

    Raises:
        InputError: the world has no return.
    """
    if not world.has_return:
        raise InputError(f"world.scene is {world.scene!r}, which has no return: recall needs one of R1 to R6")
    segments = world.entries + max(gaps) + 1
    decoded, truth, other, residual, labels = [], [], [], [], []
    examples: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for gap in gaps:
        clips = [sample_clip(world, (seed * 1000 + gap) * 1_000_000 + i, segments, gap) for i in range(clips_per_gap)]
        count = world.entries + gap
        key = jax.random.fold_in(jax.random.key(seed), gap)
        for start in range(0, clips_per_gap, CHUNK):
            chunk = clips[start : start + CHUNK]
            padded = chunk + [chunk[-1]] * (min(CHUNK, clips_per_gap) - len(chunk))  # one shape, one compile
            batch = collect(world, padded, np.zeros((len(padded), segments), np.float32))
            draw = functools.partial(_return_segment, denoiser, sampler, params, batch)
            drawn = draw(jnp.int32(count), jax.random.fold_in(key, start), classifier_free)
            frames = np.asarray(drawn)[: len(chunk)]
            first = 1 + count * world.segment_frames
            background = render_background(world, chunk)[:, first : first + world.segment_frames]
            identity, error = decode_visit(world, frames, background)
            decoded.append(identity)
            residual.append(error)
            if gap not in examples:
                video = np.concatenate([batch.reference[:1], batch.segments[:1].reshape(1, -1, *frames.shape[2:])], 1)
                examples[gap] = (video[0, : first + world.segment_frames], frames[0])
        truth += [clip.target_identity for clip in clips]
        if world.toys == 2:
            other += [next(i for i in clip.identities if i != clip.target_identity) for clip in clips]
        labels += [gap] * clips_per_gap
    report = recall_report(
        np.concatenate(decoded),
        np.asarray(truth),
        np.asarray(labels),
        colours=world.colours,
        shapes=world.shapes,
        beyond_reach=world.beyond_reach,
        residual=np.concatenate(residual),
        hallucination_threshold=HALLUCINATION_RMS**2,
        other=np.asarray(other) if other else None,
    )
    return RecallResult(
        report=report,
        truth={gap: video for gap, (video, _) in examples.items()},
        generated={gap: frames for gap, (_, frames) in examples.items()},
    )
