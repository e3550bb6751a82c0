"""VBench's dynamic degree: does enough move, by optical flow, at about 8 frames per second?

A pair of sampled frames moves where the mean of the longest 5 % of its flow vectors exceeds 6 px at 256 px of the
shorter side. A video is dynamic where at least round(n / 4) of the pairs of its n sampled frames move. `round` is
Python's, to even: at n = 2 it asks for none, and any two frames are dynamic. Below 12 fps nothing is left out.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.evaluation.metrics.metric import NotComputed, Part, Probe, Value, Want
from mpjax.evaluation.metrics.sampling import interval

LONGEST = 0.05


def longest_flow(flow: jax.Array) -> jax.Array:
    """Mean length of the longest 5 % of vectors, `[b]`, of flows `[b, height, width, 2]` in pixels."""
    length = jnp.sqrt(jnp.square(flow).sum(-1)).reshape(len(flow), -1)
    longest, _ = jax.lax.top_k(length, int(length.shape[1] * LONGEST))
    return longest.mean(1)


def needed(frames: int) -> int:
    """How many pairs of n sampled frames must move."""
    return round(4 * (frames / 16.0))


def threshold(height: int, width: int) -> float:
    """From what length on a pair moves, pixels."""
    return 6.0 * (min(height, width) / 256.0)


@dataclasses.dataclass(frozen=True, eq=False)
class DynamicDegree:
    """1 if a video is dynamic, 0 if not.

    The probe gives `longest_flow` of two frames in units of the threshold; the mean over videos is the share of dynamic
    ones.
    """

    probe: Probe
    name: str = "dynamic_degree"
    higher_is_better: bool = True

    def wants(self, part: Part) -> Sequence[Want]:
        """Neighbours of the sampled frames."""
        sampled = self._sampled(part)
        if len(sampled) < 2:
            raise NotComputed("needs two frames at 8 frames per second")
        return [Want(self.probe, list(itertools.pairwise(sampled)))]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the flows' lengths over the threshold."""
        sampled = self._sampled(part)
        dynamic = int((rows[0] > 1).sum()) >= needed(len(sampled))
        at = tuple(each - part.start for each in sampled[1:])
        return Value(value=float(dynamic), values=tuple(float(each) for each in rows[0]), at=at)

    def _sampled(self, part: Part) -> list[int]:
        return list(range(part.start, part.stop, interval(part.video.fps)))
