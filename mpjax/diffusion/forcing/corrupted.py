"""History as the truth with made-up damage: what a rollout does to a picture, imitated without the model."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from mpjax.diffusion.flow import expand
from mpjax.diffusion.forcing.base import Carry, ForcingContext, RectifiedFlow, check_probability, check_range
from mpjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class HistoryNoise(RectifiedFlow):
    """Noise augmentation (GameNGen, arXiv 2408.14837, without telling the network σ): history is x_1 + σ·ε.

    Attributes:
        sigma: range that σ is drawn from, uniformly, once a video and segment; in units of the latents.
    """

    kind: ClassVar[str] = "history_noise"
    sigma: tuple[float, float] = (0.0, 0.1)

    def __post_init__(self):
        check_range("sigma", self.sigma, 0, 100)

    def history(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """The noisy truth."""
        del x_t, v, t
        key_sigma, key_noise = jax.random.split(context.key)
        sigma = _draw(key_sigma, x_1.shape[:1], self.sigma)
        return x_1 + expand(sigma, x_1) * jax.random.normal(key_noise, x_1.shape, x_1.dtype), carry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Helios(RectifiedFlow):
    """Frame-aware corruption (Helios, arXiv 2603.04379): each frame of the history is damaged on its own.

    A frame gets noise, or blur, or neither; then its saturation may change. Blur is the kernel (a, 1 − 2a, a) along
    height and along width, edges repeated (the paper scales down and up again). Saturation s takes a frame to
    m + s·(x − m), with m the mean over the channels of a position: of RGB this is its grey, and s the colour's
    saturation. Latents have no grey: there s scales how far the channels of a position lie apart, which shifts colour
    and contrast in a way that depends on the codec.

    Attributes:
        noise: range of σ in x + σ·ε, in units of the latents.
        blur: range of a, at most 1/3, the box kernel.
        saturation: range of s, 1 keeps the frame.
        noise_probability, blur_probability: of a frame; the rest has neither.
        saturation_probability: of a frame, drawn apart from those.
    """

    kind: ClassVar[str] = "helios"
    noise: tuple[float, float] = (0.0, 1 / 3)
    blur: tuple[float, float] = (0.0, 1 / 4)
    saturation: tuple[float, float] = (0.3, 1.7)
    noise_probability: float = 0.8
    blur_probability: float = 0.1
    saturation_probability: float = 0.9

    def __post_init__(self):
        check_range("noise", self.noise, 0, 100)
        check_range("blur", self.blur, 0, 1 / 3)
        check_range("saturation", self.saturation, 0, 100)
        for name in ("noise_probability", "blur_probability", "saturation_probability"):
            check_probability(name, getattr(self, name))
        if self.noise_probability + self.blur_probability > 1:
            raise InputError(
                f"noise_probability {self.noise_probability} and blur_probability {self.blur_probability} exclude each "
                "other: their sum must be at most 1"
            )

    def history(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """The damaged truth."""
        del x_t, v, t
        frames = x_1.shape[:2]
        keys = jax.random.split(context.key, 6)
        which, saturated = (jax.random.uniform(key, frames) for key in keys[:2])
        sigma, a, s = (
            _draw(key, frames, bounds)
            for key, bounds in zip(keys[2:5], (self.noise, self.blur, self.saturation), strict=True)
        )
        noisy = which < self.noise_probability
        blurred = ~noisy & (which < self.noise_probability + self.blur_probability)
        noise = jax.random.normal(keys[5], x_1.shape, x_1.dtype)
        x = x_1 + expand(jnp.where(noisy, sigma, 0.0), x_1) * noise
        x = blur(x, jnp.where(blurred, a, 0.0))
        return saturate(x, jnp.where(saturated < self.saturation_probability, s, 1.0)), carry


def _draw(key: jax.Array, shape: tuple[int, ...], bounds: tuple[float, float]) -> jax.Array:
    return jax.random.uniform(key, shape, minval=bounds[0], maxval=bounds[1])


def blur(x: jax.Array, a: jax.Array) -> jax.Array:
    """The kernel (a, 1 − 2a, a) along height and width of x `[b, f, h, w, c]`; a `[b, f]`."""
    a = expand(a, x)
    for axis in (2, 3):
        last = x.shape[axis] - 1
        before = jnp.concatenate([x.take(jnp.array([0]), axis), x.take(jnp.arange(last), axis)], axis)
        after = jnp.concatenate([x.take(jnp.arange(1, last + 1), axis), x.take(jnp.array([last]), axis)], axis)
        x = (1.0 - 2.0 * a) * x + a * (before + after)
    return x


def saturate(x: jax.Array, s: jax.Array) -> jax.Array:
    """m + s·(x − m) with m the mean over the channels of x `[b, f, h, w, c]`; s `[b, f]`."""
    return x + (expand(s, x) - 1.0) * (x - x.mean(-1, keepdims=True))  # s = 1 keeps the bits
