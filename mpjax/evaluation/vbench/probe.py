"""Networks as probes: compiled once a picture size, in batches of one size."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class NetworkProbe:
    """A function of parameters and a few frames as a probe."""

    def __init__(self, apply: Callable[..., jax.Array], params: Any, *, batch: int):
        """See `metric.Probe`.

        Args:
            apply: parameters and each of the k frames, uint8 `[b, height, width, 3]` → rows `[b, …]`.
            params: its parameters.
            batch: places in one call.
        """
        self._apply, self._params, self._batch = jax.jit(apply), jax.device_put(params), batch

    @property
    def batch(self) -> int:
        """As given."""
        return self._batch

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 `[b, k, height, width, 3]` → float32 `[b, …]`."""
        # A last batch that is not full is filled up: every other size would be compiled anew.
        full = np.concatenate([frames, np.repeat(frames[-1:], self._batch - len(frames), axis=0)])
        rows = self._apply(self._params, *(full[:, i] for i in range(full.shape[1])))
        return np.asarray(rows)[: len(frames)]


def normalise(images: jax.Array, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> jax.Array:
    """0..255 → (x / 255 − mean) / deviation, by channel."""
    mean, deviation = (jnp.asarray(each, jnp.float32) for each in statistics)
    return (images / 255 - mean) / deviation
