"""HunyuanVideo's video autoencoder: 3-D convolutions that look back in time and never ahead.

Video [b, 1 + 4 (t − 1), 8 h, 8 w, 3] ↔ latents [b, t, h, w, c]. Everything here is the bare network in one pass;
`vae_tiling.py` runs it in tiles, as diffusers does unless told otherwise.

Only the convolutions and the attention are causal: GroupNorm takes its statistics over all frames of a call, so that
frames appended at the end change every frame before them.

Source: docs/backbone.md, section 3 (diffusers 0.42 `AutoencoderKLHunyuanVideo`).
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.errors import InputError
from mpjax.models.attention import attention
from mpjax.models.convolution import causal_convolve
from mpjax.models.layers import EPSILON, Dense, default_init, logical

TIME_FACTOR = 4
SPACE_FACTOR = 8
# (t, h, w) by which the stages shrink and grow, in the order in which each side runs: both change space alone first,
# so the decoder is not the encoder reversed. The last stage keeps its size.
STAGE_FACTORS = ((1, 2, 2), (2, 2, 2), (2, 2, 2), None)
LOGVAR_RANGE = (-30.0, 20.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaeArchitecture:
    """Sizes of the autoencoder; the defaults are HunyuanVideo's: 246,478,803 parameters.

    Attributes:
        channels: latent channels c.
        widths: channels of the four stages, the finest first.
        layers: residual blocks of a stage of the encoder; the decoder has one more.
        groups: of GroupNorm.
        scaling_factor: what the latents are multiplied by before a denoiser sees them.
    """

    channels: int = 16
    widths: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    groups: int = 32
    scaling_factor: float = 0.476986

    def __post_init__(self):
        if min(self.channels, self.layers, self.groups) < 1:
            raise InputError("channels, layers and groups must be at least 1")
        if len(self.widths) != len(STAGE_FACTORS) or any(w < 1 or w % self.groups for w in self.widths):
            raise InputError(
                f"widths is {self.widths}: give {len(STAGE_FACTORS)} positive multiples of groups = {self.groups}"
            )
        if not self.scaling_factor > 0:
            raise InputError(f"scaling_factor is {self.scaling_factor}: it must be above 0")


class Posterior(NamedTuple):
    """The normal distribution an encoder gives: mean and log-variance, float32 `[b, t, h, w, c]`."""

    mean: jax.Array
    logvar: jax.Array

    @classmethod
    def of(cls, moments: jax.Array) -> "Posterior":
        """From `[b, t, h, w, 2 c]`: the mean in the first half of the channels; the log-variance is clamped."""
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return cls(mean, jnp.clip(logvar, *LOGVAR_RANGE))

    def sample(self, key: jax.Array) -> jax.Array:
        """mean + exp(logvar / 2) · ε, ε ~ N(0, 1)."""
        return self.mean + jnp.exp(self.logvar / 2) * jax.random.normal(key, self.mean.shape, self.mean.dtype)


class CausalConv(nn.Module):
    """A convolution over (t, h, w) whose borders repeat the edge: in time all of it in front, in space on both sides.

    A kernel of 1 is a linear map of the channels. Parameters are float32; the product runs in `dtype`.
    """

    features: int
    kernel: int = 3
    strides: tuple[int, int, int] = (1, 1, 1)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, t, h, w, in]` to `[b, ⌈t/s⌉, ⌈h/s⌉, ⌈w/s⌉, features]`, s the stride of each axis."""
        k = self.kernel
        axes = (None, None, None, "embed", None)
        weight = self.param("kernel", logical(default_init, axes), (k, k, k, x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", logical(nn.initializers.zeros, (None,)), (self.features,), jnp.float32)
        y = causal_convolve(x.astype(self.dtype), weight.astype(self.dtype), self.strides)
        return y + bias.astype(self.dtype)


class GroupNorm(nn.Module):
    """Normalises each group of channels over **all** frames and places of a video, in float32; scale and bias."""

    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, t, h, w, c]`, c a multiple of `groups`, to the same shape and dtype."""
        c = x.shape[-1]
        scale = self.param("scale", logical(nn.initializers.ones, (None,)), (c,), jnp.float32)
        bias = self.param("bias", logical(nn.initializers.zeros, (None,)), (c,), jnp.float32)
        y = x.astype(jnp.float32)
        y = y - self._mean(y)
        return (y * (jax.lax.rsqrt(self._mean(jnp.square(y)) + EPSILON) * scale) + bias).astype(x.dtype)

    def _mean(self, x: jax.Array) -> jax.Array:
        """Of every group, `[b, t, h, w, c]` → `[b, 1, 1, 1, c]`.

        Channel by channel and row by row first: whole vectors are added up, and none of the sums is a long one.
        """
        b, c = x.shape[0], x.shape[-1]
        groups = x.mean(3).mean((1, 2)).reshape(b, self.groups, -1).mean(-1)
        return jnp.repeat(groups, c // self.groups, axis=-1)[:, None, None, None]


class ResidualBlock(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))); where the width changes, x goes through a convolution of kernel 1."""

    features: int
    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, t, h, w, in]` to `[b, t, h, w, features]`."""
        h = x
        for n in (1, 2):
            h = nn.silu(GroupNorm(self.groups, name=f"norm{n}")(h))
            h = CausalConv(self.features, dtype=self.dtype, name=f"conv{n}")(h)
        if x.shape[-1] != self.features:
            x = CausalConv(self.features, kernel=1, dtype=self.dtype, name="conv_shortcut")(x)
        return x + h


class FrameCausalAttention(nn.Module):
    """Self-attention with one head over all places of a frame and of the frames before it, and a residual."""

    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, t, h, w, c]` to the same shape."""
        b, t, h, w, c = x.shape
        tokens = GroupNorm(self.groups, name="group_norm")(x).reshape(b, t * h * w, 1, c)
        q, k, v = (Dense(c, dtype=self.dtype, name=name)(tokens) for name in ("to_q", "to_k", "to_v"))
        # Frame by frame, since a mask over all pairs would be t²h²w² large, and half of it would be thrown away.
        ends = [(n + 1) * h * w for n in range(t)]
        frames = [attention(q[:, end - h * w : end], k[:, :end], v[:, :end]) for end in ends]
        out = Dense(c, dtype=self.dtype, name="to_out")(jnp.concatenate(frames, 1))
        return x + out.reshape(x.shape)


class MidBlock(nn.Module):
    """Residual block, attention, residual block, at the coarsest size."""

    architecture: VaeArchitecture
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, t, h, w, c]` to the same shape."""
        groups = self.architecture.groups
        x = ResidualBlock(x.shape[-1], groups, self.dtype, name="resnet_0")(x)
        x = FrameCausalAttention(groups, self.dtype, name="attention")(x)
        return ResidualBlock(x.shape[-1], groups, self.dtype, name="resnet_1")(x)


class Encoder(nn.Module):
    """Video to the moments of its latents."""

    architecture: VaeArchitecture
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, video: jax.Array) -> jax.Array:
        """Maps `[b, 1 + 4 (t − 1), 8 h, 8 w, 3]` to `[b, t, h, w, 2 c]`."""
        arch = self.architecture
        x = CausalConv(arch.widths[0], dtype=self.dtype, name="conv_in")(video)
        for stage, (width, factor) in enumerate(zip(arch.widths, STAGE_FACTORS, strict=True)):
            for layer in range(arch.layers):
                x = ResidualBlock(width, arch.groups, self.dtype, name=f"down_{stage}_resnet_{layer}")(x)
            if factor is not None:
                x = CausalConv(width, strides=factor, dtype=self.dtype, name=f"down_{stage}_downsample")(x)
        x = MidBlock(arch, self.dtype, name="mid")(x)
        x = nn.silu(GroupNorm(arch.groups, name="norm_out")(x))
        return CausalConv(2 * arch.channels, dtype=self.dtype, name="conv_out")(x)


class Decoder(nn.Module):
    """Latents to video."""

    architecture: VaeArchitecture
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, latents: jax.Array) -> jax.Array:
        """Maps `[b, t, h, w, c]` to `[b, 1 + 4 (t − 1), 8 h, 8 w, 3]`, not clipped."""
        arch = self.architecture
        x = CausalConv(arch.widths[-1], dtype=self.dtype, name="conv_in")(latents)
        x = MidBlock(arch, self.dtype, name="mid")(x)
        for stage, (width, factor) in enumerate(zip(reversed(arch.widths), STAGE_FACTORS, strict=True)):
            for layer in range(arch.layers + 1):
                x = ResidualBlock(width, arch.groups, self.dtype, name=f"up_{stage}_resnet_{layer}")(x)
            if factor is not None:
                x = CausalConv(width, dtype=self.dtype, name=f"up_{stage}_upsample")(repeat_frames(x, factor))
        x = nn.silu(GroupNorm(arch.groups, name="norm_out")(x))
        return CausalConv(3, dtype=self.dtype, name="conv_out")(x)


class Vae(nn.Module):
    """Encoder, decoder and the linear maps of channels at the latents."""

    architecture: VaeArchitecture
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Names the four parts as checkpoints do."""
        channels = self.architecture.channels
        self.encoder = Encoder(self.architecture, self.dtype)
        self.quant_conv = CausalConv(2 * channels, kernel=1, dtype=self.dtype)
        self.post_quant_conv = CausalConv(channels, kernel=1, dtype=self.dtype)
        self.decoder = Decoder(self.architecture, self.dtype)

    def __call__(self, video: jax.Array) -> jax.Array:
        """The video through both halves, by the posterior's mean: what initialises every parameter."""
        return self.decode(Posterior.of(self.encode(video)).mean)

    def encode(self, video: jax.Array) -> jax.Array:
        """Moments of the latents, see `Posterior.of`.

        Args:
            video: `[b, 1 + 4 (t − 1), 8 h, 8 w, 3]` in [−1, 1].

        Returns:
            float32 `[b, t, h, w, 2 c]`, not scaled.
        """
        return self.quant_conv(self.encoder(video)).astype(jnp.float32)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Video of latents.

        Args:
            latents: `[b, t, h, w, c]`, not scaled.

        Returns:
            float32 `[b, 1 + 4 (t − 1), 8 h, 8 w, 3]`, about [−1, 1], not clipped.
        """
        return self.decoder(self.post_quant_conv(latents)).astype(jnp.float32)


def repeat_frames(x: jax.Array, factor: tuple[int, int, int]) -> jax.Array:
    """Nearest-neighbour growth of `[b, t, h, w, c]` by (t, h, w); the first frame stands for itself alone in time."""
    time, height, width = factor
    x = x.repeat(height, axis=2).repeat(width, axis=3)
    return jnp.concatenate([x[:, :1], x[:, 1:].repeat(time, axis=1)], 1) if time > 1 else x
