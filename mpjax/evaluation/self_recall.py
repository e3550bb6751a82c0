"""Self-recall: does what returns agree with what the *model itself* had shown, when it draws the whole video?

Read it beside recall, never instead of it. A model that draws its toys badly decodes to a few identities again and
again, and then agrees with itself without remembering anything: in a trial a model without memory agreed with itself in
52 % of the clips, while its recall from true history was at chance, 7 %. So every rate comes with the agreement that
two independent draws of the same identities would have.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.data.batch import Batch
from mpjax.data.recallworld.batches import collect
from mpjax.data.recallworld.clips import Clip, sample_clip
from mpjax.data.recallworld.decode import decode_visit
from mpjax.data.recallworld.render import render_background
from mpjax.data.recallworld.world import World
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Sampler
from mpjax.errors import InputError
from mpjax.evaluation.recall import chunk_size
from mpjax.evaluation.recall_metrics import proportion
from mpjax.models.autoregressive import append_segment, sample_segment, start_video
from mpjax.models.memorypack import Denoiser
from mpjax.progress import Progress


@functools.partial(jax.jit, static_argnums=(0, 1, 5))
def _rollout(
    denoiser: Denoiser, sampler: Sampler, params: dict, batch: Batch, key: jax.Array, classifier_free: ClassifierFree
) -> jax.Array:
    """Every segment on own history, `[b, s, f, h, w, c]`."""

    def segment(state, n):
        prompts = batch.prompts_of(n)
        noise = jax.random.normal(jax.random.fold_in(key, n), batch.segments[:, 0].shape)
        drawn = sample_segment(denoiser, sampler, params, state, prompts, noise, classifier_free)
        return append_segment(denoiser, params, state, drawn), drawn

    state = start_video(denoiser, params, batch.first_prompts, batch.reference)
    _, drawn = jax.lax.scan(segment, state, jnp.arange(batch.segments.shape[1]))
    return jnp.swapaxes(drawn, 0, 1)


def evaluate_self_recall(
    denoiser: Denoiser,
    sampler: Sampler,
    params: dict,
    world: World,
    *,
    gaps: Sequence[int],
    clips_per_gap: int = 128,
    seed: int = 0,
    classifier_free: ClassifierFree = UNGUIDED,
    say: Callable[[str], None] | None = None,
) -> list[dict]:
    """How often the identity decoded from the return is that decoded from the model's own reveal.

    Args:
        denoiser, sampler, params: the model (EMA weights).
        world: a scene with a return, but R6, whose reveal shows two toys at once.
        gaps: hidden segments.
        clips_per_gap: videos for each gap; prompts and first frames are those of held-out clips.
        seed: of clips and noise.
        classifier_free: guidance away from the empty prompt.
        say: is told how far it is; None is silent.

    Returns:
        One {gap, n, rate, ci95, independent, beyond_reach} for each gap; `independent` is the rate that reveal and
        return would have if each kept its identities and they had nothing to do with one another: sum over identities
        of the product of their shares.

    Raises:
        InputError: the scene has no return, or shows two toys at once.
    """
    if not world.has_return or not gaps:
        raise InputError(f"world.scene is {world.scene!r} with gaps {list(gaps)}: self-recall needs a return and a gap")
    segments = world.entries + max(gaps) + 1  # of every video, so that all compile once
    chunk = chunk_size(world, segments, clips_per_gap)
    progress, rows = Progress(0, len(gaps), say or (lambda line: None)), []
    for done, gap in enumerate(gaps, 1):
        clips = [sample_clip(world, (seed * 1000 + gap) * 1_000_000 + i, segments, gap) for i in range(clips_per_gap)]
        if (clips[0].visible[clips[0].sprites < world.ids].sum(axis=0) > 1).any():
            raise InputError(f"scene {world.scene} shows two toys at once: self-recall needs one that is shown alone")
        key, found = jax.random.fold_in(jax.random.key(seed), gap), []
        for start in range(0, clips_per_gap, chunk):
            some = clips[start : start + chunk]
            padded = some + [some[-1]] * (chunk - len(some))  # one shape, one compile
            batch = collect(world, padded, np.zeros((chunk, segments), np.float32))
            drawn = _rollout(denoiser, sampler, params, batch, jax.random.fold_in(key, start), classifier_free)
            found.append(_decode(world, some, np.asarray(drawn)[: len(some)].reshape(len(some), -1, *drawn.shape[3:])))
        reveal, returned = (np.concatenate(part) for part in zip(*found, strict=True))
        shares = [np.bincount(x, minlength=world.ids) / len(x) for x in (reveal, returned)]
        rows.append(
            {
                "gap": int(gap),
                **proportion(reveal == returned),
                "independent": float(shares[0] @ shares[1]),
                "beyond_reach": world.beyond_reach(gap),
            }
        )
        progress.update(done, f"gap {gap}")
    return rows


def _decode(world: World, clips: list[Clip], video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Identity of the target where it first is to be seen and where it returns, int `[n]` each."""
    background = render_background(world, clips)[:, 1:]
    seen = np.stack([clip.target_shown[1] for clip in clips])[:, 1:]
    segment = np.arange(seen.shape[1]) // world.segment_frames
    returning = np.asarray([clip.return_segment for clip in clips])[:, None]
    reveal, _ = decode_visit(world, video, background, seen & (segment < returning))
    returned, _ = decode_visit(world, video, background, seen & (segment == returning))
    return reveal, returned
