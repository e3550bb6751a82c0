"""Classifier-free guidance: away from what a negative prompt would draw (Ho and Salimans 2022, arXiv 2207.12598).

    (1) v = v⁻ + s·(v⁺ − v⁻)                      v⁺ under the prompt, v⁻ under the negative one
    (2) v′ = v · std(v⁺) / std(v)                 std over all axes but the first (Lin et al. 2023, arXiv 2305.08891)
    (3) guided = r·v′ + (1 − r)·v

With s = 1 that is v⁺. Distilled guidance is another thing: a number that a network with `guidance_embeds` reads.
Source: docs/backbone.md, 2.4; diffusers 0.42 `true_cfg_scale` of `HunyuanVideoFramepackPipeline`, `rescale_noise_cfg`.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from mpjax.diffusion.samplers import StatefulVelocity
from mpjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierFree:
    """Classifier-free guidance; costs a second evaluation of the network wherever it is active.

    Attributes:
        scale: s of Eq. (1), at least 1, which switches guidance off.
        rescale: r of Eq. (3), 0 to 1: how much of the contrast that a large scale adds is taken back.
    """

    scale: float = 1.0
    rescale: float = 0.0

    def __post_init__(self):
        if not (self.scale >= 1 and math.isfinite(self.scale)):
            raise InputError(f"scale is {self.scale:g}: it must be at least 1, which switches guidance off")
        if not 0 <= self.rescale <= 1:
            raise InputError(f"rescale is {self.rescale:g}: it must lie in [0, 1]")

    @property
    def active(self) -> bool:
        """Whether the negative is evaluated at all."""
        return self.scale != 1

    def guide(self, positive: StatefulVelocity, negative: StatefulVelocity) -> StatefulVelocity:
        """The guided velocity, whose state is the pair of the two; without guidance the second is left alone."""

        def guided(x: jax.Array, t: jax.Array, states: Any) -> tuple[jax.Array, Any]:
            v, on = positive(x, t, states[0])
            if not self.active:
                return v, (on, states[1])
            v_negative, off = negative(x, t, states[1])
            return self.combine(v, v_negative), (on, off)

        return guided

    def combine(self, positive: jax.Array, negative: jax.Array) -> jax.Array:
        """Eqs. (1) to (3), v⁺ and v⁻ `[b, …]` → `[b, …]`."""
        guided = negative + self.scale * (positive - negative)
        if not self.rescale:
            return guided
        # A network that has learned nothing returns zeros, which have no contrast to restore.
        ratio = _std(positive) / jnp.maximum(_std(guided), jnp.finfo(guided.dtype).tiny)
        return self.rescale * ratio * guided + (1.0 - self.rescale) * guided


UNGUIDED = ClassifierFree()


def _std(v: jax.Array) -> jax.Array:
    """Of each sample, `[b, 1, …]`."""
    return jnp.std(v, axis=tuple(range(1, v.ndim)), keepdims=True)
