"""The elementary pieces of the MM-DiT (docs/backbone.md, section 1.2): norms, embeddings, modulation, patches."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mpjax.models import quantization
from mpjax.models.lora import ENTRY, low_rank
from mpjax.parallel.rules import HIDDEN, constrain

EPSILON = 1e-6
SINUSOID_FREQUENCIES = (10000.0 ** (-np.arange(128) / 128)).astype(np.float32)

# Tokens that are pictures are few numbers, and rows and columns of a picture are no parts of a sequence: not split.
PICTURES = ("batch", None, None)

default_init = nn.initializers.xavier_uniform()


def logical(init: nn.initializers.Initializer, axes: tuple[str | None, ...]) -> Callable[..., Any]:
    """An initialiser whose parameter carries logical axis names; inside a module it is a plain array."""
    return nn.with_logical_partitioning(init, axes)


class Dense(nn.Module):
    """y = x W + b with logical axis names on the kernel `[in, out]` and the bias, as every Linear of the backbone.

    Parameters are float32; the product runs in `dtype`. Where they hold a quantised kernel (`models.quantization`), it
    is multiplied out first; where they hold an adapter of this layer (`models.lora`), its update is added.
    """

    features: int
    axes: tuple[str | None, str | None] = ("embed", None)
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = default_init
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., in]` to `[..., features]`."""
        if self.has_variable("params", quantization.ENTRY):
            kernel = quantization.dequantize(self.get_variable("params", quantization.ENTRY))
        else:
            kernel_init = logical(self.kernel_init, self.axes)
            kernel = self.param("kernel", kernel_init, (x.shape[-1], self.features), jnp.float32)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if self.use_bias:
            bias_init = logical(nn.initializers.zeros, self.axes[1:])
            y = y + self.param("bias", bias_init, (self.features,), jnp.float32).astype(self.dtype)
        if self.has_variable("params", ENTRY):
            y = y + low_rank(x, self.get_variable("params", ENTRY), self.dtype)
        return y


def layer_norm(x: jax.Array) -> jax.Array:
    """LayerNorm over the last axis without parameters, eps 1e-6, biased variance, computed in float32."""
    y = x.astype(jnp.float32)
    y = y - y.mean(-1, keepdims=True)
    return (y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + EPSILON)).astype(x.dtype)


class AffineLayerNorm(nn.Module):
    """LayerNorm with scale and bias, as in the token refiner and SemanticPack."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis of `[..., d]`."""
        scale = self.param("scale", logical(nn.initializers.ones, (None,)), (x.shape[-1],), jnp.float32)
        bias = self.param("bias", logical(nn.initializers.zeros, (None,)), (x.shape[-1],), jnp.float32)
        return layer_norm(x) * scale.astype(x.dtype) + bias.astype(x.dtype)


class RMSNorm(nn.Module):
    """x · rsqrt(mean(x²) + 1e-6) · scale over the last axis (head_dim), mean in float32; one scale for all heads."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis of `[..., head_dim]`."""
        scale = self.param("scale", logical(nn.initializers.ones, (None,)), (x.shape[-1],), jnp.float32)
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + EPSILON)
        return (y * scale).astype(x.dtype)


def sinusoid(t: jax.Array) -> jax.Array:
    """Timestep embedding `[b]` → float32 `[b, 256]`: [cos(128), sin(128)] of t · 10000^(−i/128).

    The caller passes t already scaled (1000 · σ, 1000 · guidance). Source: diffusers `Timesteps` with
    flip_sin_to_cos=True, downscale_freq_shift=0.
    """
    angles = t.astype(jnp.float32)[:, None] * SINUSOID_FREQUENCIES
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


class EmbeddingMLP(nn.Module):
    """linear_2(SiLU(linear_1(x))) to width `features` (diffusers `TimestepEmbedding`)."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, in]` to `[b, features]`."""
        x = Dense(self.features, (None, "embed"), dtype=self.dtype, name="linear_1")(x)
        return Dense(self.features, dtype=self.dtype, name="linear_2")(nn.silu(x))


@functools.partial(jax.checkpoint, prevent_cse=False)
def gelu(x: jax.Array) -> jax.Array:
    """GELU in its tanh form; the backward pass keeps x alone, where it would keep four more arrays of its size."""
    return nn.gelu(x, approximate=True)


class FeedForward(nn.Module):
    """down(activation(up(x))); GELU-tanh in the blocks, SiLU in the refiner."""

    hidden: int
    activation: str = "gelu"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, n, d]` to `[b, n, d]`."""
        h = constrain(Dense(self.hidden, ("embed", "mlp"), dtype=self.dtype, name="up")(x), HIDDEN)
        h = nn.silu(h) if self.activation == "silu" else gelu(h)
        return Dense(x.shape[-1], ("mlp", "embed"), dtype=self.dtype, name="down")(h)


class Modulation(nn.Module):
    """Linear(SiLU(temb)) split into `parts` vectors `[b, 1, d]`.

    Starts at zero (adaLN-Zero), so that every block is the identity before training.
    """

    parts: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, temb: jax.Array) -> list[jax.Array]:
        """Maps the conditioning vector `[b, d]` to `parts` arrays `[b, 1, d]`."""
        features = self.parts * temb.shape[-1]
        y = Dense(features, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="linear")(nn.silu(temb))
        return jnp.split(y[:, None], self.parts, axis=-1)


def pad_to_multiple(x: jax.Array, multiples: Sequence[int], first_axis: int) -> jax.Array:
    """Repeats the edge at the *end* of consecutive axes until each is a multiple (docs/backbone.md, section 1.6)."""
    widths = [(0, 0)] * x.ndim
    for i, multiple in enumerate(multiples):
        axis = first_axis + i
        widths[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, widths, mode="edge") if any(after for _, after in widths) else x


def patchify(x: jax.Array, kernel: tuple[int, int, int]) -> jax.Array:
    """Cuts `[b, t, h, w, c]` into patches `[b, n, c·kt·kh·kw]`, t-major, edge-padded at the end.

    The channel order inside a patch is (c, kt, kh, kw), that of a flattened torch Conv3d weight.
    """
    x = pad_to_multiple(x, kernel, 1)
    b, t, h, w, c = x.shape
    kt, kh, kw = kernel
    x = x.reshape(b, t // kt, kt, h // kh, kh, w // kw, kw, c)
    return constrain(x.transpose(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, -1, c * kt * kh * kw), PICTURES)


def unpatchify(tokens: jax.Array, frames: int, height: int, width: int, patch: int) -> jax.Array:
    """The inverse for time patch 1: `[b, t·(h/p)·(w/p), c·p·p]` → `[b, t, h, w, c]`, channel order (c, py, px)."""
    b = tokens.shape[0]
    x = constrain(tokens, PICTURES).reshape(b, frames, height // patch, width // patch, -1, patch, patch)
    return x.transpose(0, 1, 2, 5, 3, 6, 4).reshape(b, frames, height, width, -1)


def token_grid(size: Sequence[int], kernel: tuple[int, int, int]) -> tuple[int, int, int]:
    """Number of patches along (t, h, w) that `patchify` cuts from latents of this (t, h, w)."""
    t, h, w = size
    return -(-t // kernel[0]), -(-h // kernel[1]), -(-w // kernel[2])


def grid_positions(grid: tuple[int, int, int], width: int) -> jax.Array:
    """Fixed absolute position features of a token grid, float32 `[t·h·w, 3·width]`: [cos, sin] per axis, base 100."""
    frequencies = 100.0 ** (-np.arange(width // 2) / (width // 2))
    features = []
    for positions in np.meshgrid(*(np.arange(n) for n in grid), indexing="ij"):
        angles = positions.reshape(-1, 1) * frequencies
        features += [np.cos(angles), np.sin(angles)]
    return jnp.asarray(np.concatenate(features, -1), jnp.float32)
