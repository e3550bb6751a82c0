"""Training data: one element is one whole batch, a pure function of (seed, split, step).

Nothing is stored and nothing shuffled, so a run resumes with `dataset[step:]` and every host can draw its own part.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import grain
import numpy as np

from mpjax.conditioning.tokens import encode_prompt
from mpjax.data.batch import Batch
from mpjax.data.recallworld.clips import Clip, clip_seed, sample_clip
from mpjax.data.recallworld.render import render
from mpjax.data.recallworld.stream import uniforms
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError

_STEPS = 1 << 40
_BATCH_DRAWS = (1 << 32) - 1
"""The clip index that no clip has: its seed serves the draws a batch shares."""


def batches(
    world: World,
    *,
    batch_size: int,
    segments: int,
    seed: int,
    split: str,
    segments_at: Callable[[int], int],
    return_focus: float = 0.7,
    given: int = 1,
    rows: Sequence[int] | None = None,
) -> grain.MapDataset:
    """Batches of fresh clips without end; element `step` is the batch of that step.

    Scenes with a return: all clips of a batch share one gap, drawn evenly from 0 to the longest that fits, so that the
    return is the same segment throughout, and one segment carries the loss: the return with probability `return_focus`,
    else one of the other valid segments. D1 and D2: every valid segment after the first `given` carries the loss.

    Args:
        world: the world.
        batch_size: clips a batch.
        segments: segments of every clip, the static shape.
        seed: 0..2^32-1.
        split: "train" or "validation"; they share no clip.
        segments_at: step → number of valid segments at that step, the curriculum; the rest has weight 0.
        return_focus: probability that the return carries the loss, 0..1.
        given: D1 and D2 only: segments whose truth is the first history.
        rows: clips of each batch that are drawn, 0..batch_size-1 (default: all); an element then has only these.

    Returns:
        A dataset of `Batch` with NumPy leaves: reference `[b, 1, H, W, 3]`, segments `[b, s, f, H, W, 3]`, prompts
        `[b, s, world.prompt_bytes]`, weight `[b, s]` of zeros and ones.

    Raises:
        InputError: an argument is out of its range; for a wrong `segments_at`, when that step is asked for.
    """
    if not 1 <= batch_size < _BATCH_DRAWS:
        raise InputError(f"batch_size is {batch_size}: use 1 or more")
    if not 0 <= return_focus <= 1:
        raise InputError(f"return_focus is {return_focus}: use a probability from 0 to 1")
    if given < 0:
        raise InputError(f"given is {given}: use 0 or more")
    clip_seed(seed=seed, split=split, step=0, index=0)
    source = _BatchSource(
        world=world,
        batch_size=batch_size,
        segments=segments,
        seed=seed,
        split=split,
        segments_at=segments_at,
        return_focus=return_focus,
        given=given,
        rows=tuple(range(batch_size)) if rows is None else tuple(rows),
    )
    return grain.MapDataset.source(source)


def collect(world: World, clips: list[Clip], weight: np.ndarray) -> Batch:
    """Render clips of s segments into one batch.

    Args:
        world: the world of all clips.
        clips: b clips of equal length.
        weight: loss weight of each segment, float32 `[b, s]`.

    Returns:
        A `Batch` with NumPy leaves.

    Raises:
        InputError: as `render`.
    """
    video = render(world, clips)
    b, s = weight.shape
    segments = video[:, 1:].reshape(b, s, world.segment_frames, *video.shape[2:])
    prompts = np.stack([_encode(p, world.prompt_bytes) for clip in clips for p in clip.prompts])
    return Batch(reference=video[:, :1], segments=segments, prompts=prompts.reshape(b, s, -1), weight=weight)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _BatchSource:
    """Grain's random-access source of whole batches."""

    world: World
    batch_size: int
    segments: int
    seed: int
    split: str
    segments_at: Callable[[int], int]
    return_focus: float
    given: int
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return _STEPS

    def __getitem__(self, step) -> Batch:
        step = int(step)
        valid = int(self.segments_at(step))
        if not 1 <= valid <= self.segments:
            raise InputError(f"segments_at({step}) is {valid}: use 1 to segments = {self.segments}")
        seeds = functools.partial(clip_seed, seed=self.seed, split=self.split, step=step)
        gap, weight = self._plan(valid, uniforms(seeds(index=_BATCH_DRAWS), 3))
        clips = [sample_clip(self.world, seeds(index=i), self.segments, gap) for i in self.rows]
        return collect(self.world, clips, np.tile(weight, (len(self.rows), 1)))

    def _plan(self, valid: int, draws: np.ndarray) -> tuple[int | None, np.ndarray]:
        """The gap of a batch and the weight of its segments `[s]`."""
        weight = np.zeros(self.segments, np.float32)
        if not self.world.has_return:
            if self.given >= valid:
                raise InputError(f"given is {self.given}, but only {valid} segments are valid: use a smaller given")
            weight[self.given : valid] = 1
            return None, weight
        gap = int(draws[0] * (self.world.largest_gap(valid) + 1))
        returned = self.world.entries + gap
        others = [n for n in range(valid) if n != returned]
        chosen = returned if draws[1] < self.return_focus else others[int(draws[2] * len(others))]
        weight[chosen] = 1
        return gap, weight


@functools.lru_cache(maxsize=256)
def _encode(prompt: str, length: int) -> np.ndarray:
    tokens = encode_prompt(prompt, length)
    tokens.flags.writeable = False
    return tokens
