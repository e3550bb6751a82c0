"""AMT-S (2304.09790): the frame half-way between two others, by flows to both that are refined at three sizes."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.evaluation.vbench.flow_layers import (
    conv,
    coordinates,
    correlation_pyramid,
    instance_norm,
    look_up,
    pad_to,
    warp,
)
from mpjax.evaluation.vbench.resize import resize

LEVELS, RADIUS = 4, 3
CHANNELS = (20, 32, 44, 56)
SIDE = 20  # channels of a residual block that get convolutions of their own
FLOWS = 3  # pairs of flows that are merged at full size
MULTIPLE = 16
HALF = 0.5


def scaled(x: jax.Array, factor: float) -> jax.Array:
    """Maps `[b, h, w, c]` resized by a factor, bilinear."""
    return resize(x, (int(x.shape[1] * factor), int(x.shape[2] * factor)), "bilinear", antialias=False)


def leaky(x: jax.Array) -> jax.Array:
    """A leaky ReLU of slope 0.1."""
    return nn.leaky_relu(x, 0.1)


class PReLU(nn.Module):
    """max(0, x) + a · min(0, x), with a learned a for each channel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, c]` → the same."""
        slope = self.param("weight", nn.initializers.constant(0.25), x.shape[-1:])
        return jnp.where(x >= 0, x, slope * x)


def conv_prelu(x: jax.Array, features: int, name: str, stride: int = 1) -> jax.Array:
    """A 3 x 3 convolution and its activation."""
    return PReLU(name=f"{name}.1")(conv(x, features, 3, f"{name}.0", stride))


class Upconv(nn.Module):
    """PyTorch's transposed convolution of size 4, stride 2, padding 1: twice the size."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, c]` → `[b, 2 h, 2 w, features]`."""
        weight = self.param("weight", nn.initializers.normal(), (x.shape[-1], self.features, 4, 4))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel = weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
        pads = ((2, 2), (2, 2))
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), pads, (2, 2), dimension_numbers=numbers) + bias


class FeatureEncoder(nn.Module):
    """Features at an eighth of the size, of which the correlations are taken."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, 3]` → `[b, h / 8, w / 8, 84]`."""
        x = nn.relu(instance_norm(conv(x, 32, 7, "conv1", 2)))
        for layer, (width, stride) in enumerate(((32, 1), (64, 2), (96, 2)), start=1):
            for block in range(2):
                name, stride = f"layer{layer}.{block}", stride if block == 0 else 1
                y = nn.relu(instance_norm(conv(x, width // 4, 1, f"{name}.conv1")))
                y = nn.relu(instance_norm(conv(y, width // 4, 3, f"{name}.conv2", stride)))
                y = nn.relu(instance_norm(conv(y, width, 1, f"{name}.conv3")))
                if stride != 1:
                    x = instance_norm(conv(x, width, 1, f"{name}.downsample.0", stride))
                x = nn.relu(x + y)
        return conv(x, 84, 1, "conv2")


class Pyramid(nn.Module):
    """Features at a half, a quarter, an eighth and a sixteenth."""

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """`[b, h, w, 3]` → four maps."""
        maps = []
        for level, width in enumerate(CHANNELS, start=1):
            x = conv_prelu(conv_prelu(x, width, f"pyramid{level}.0", 2), width, f"pyramid{level}.1")
            maps.append(x)
        return maps


class Decoder(nn.Module):
    """Convolutions, a residual block whose last channels have convolutions of their own, and twice the size."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, width: int) -> jax.Array:
        """`[b, h, w, c]` → `[b, 2 h, 2 w, features]`, `width` channels between."""
        x = conv_prelu(x, width, "convblock.0")
        y = x
        for main, side in (("conv1", "conv2"), ("conv3", "conv4")):
            y = conv_prelu(y, width, f"convblock.1.{main}")
            rest, own = y[..., :-SIDE], y[..., -SIDE:]
            y = jnp.concatenate([rest, conv_prelu(own, SIDE, f"convblock.1.{side}")], -1)
        y = conv(y, width, 3, "convblock.1.conv5")
        return Upconv(self.features, name="convblock.2")(PReLU(name="convblock.1.prelu")(x + y))


class Update(nn.Module):
    """What is added to features and flows after a look-up in the correlations, at an eighth of the size."""

    width: int
    shrink: int

    @nn.compact
    def __call__(self, x: jax.Array, flow: jax.Array, correlation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features, and at 1 / `shrink` of their size flows `[b, h / 8, w / 8, 4]` → both changes, at their size."""
        inner = scaled(x, 1 / self.shrink) if self.shrink != 1 else x
        seen = leaky(conv(correlation, 64, 1, "convc1"))
        moved = leaky(conv(leaky(conv(flow, 40, 7, "convf1")), 20, 3, "convf2"))
        both = leaky(conv(jnp.concatenate([seen, moved], -1), 68, 3, "conv"))

        def two(name: str, x: jax.Array, features: int) -> jax.Array:
            return conv(leaky(conv(x, 76, 3, f"{name}.0")), features, 3, f"{name}.2")

        out = two("gru", jnp.concatenate([both, flow, inner], -1), 76)
        features, flows = two("feat_head", out, self.width), two("flow_head", out, 4)
        if self.shrink != 1:
            features, flows = scaled(features, self.shrink), self.shrink * scaled(flows, self.shrink)
        return features, flows


class AMT(nn.Module):
    """Two pictures → the one between them."""

    @nn.compact
    def __call__(self, first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pictures 0..1, `[b, height, width, 3]`, sides multiples of 16.

        Returns:
            the picture half-way, clipped to 0..1, and its flows to the first one, `[b, height, width, 3, 2]`.
        """
        b = len(first)
        mean = jnp.concatenate([first, second], 1).mean((1, 2, 3), keepdims=True)
        first, second = first - mean, second - mean
        both = jnp.concatenate([first, second])
        features = FeatureEncoder(name="feat_encoder")(both)
        forth = correlation_pyramid(features[:b], features[b:], LEVELS, RADIUS)
        back = correlation_pyramid(features[b:], features[:b], LEVELS, RADIUS)
        grid = coordinates(*features.shape[1:3])
        maps = [(each[:b], each[b:]) for each in Pyramid(name="encoder")(both)]

        def refine(x: jax.Array, flows: jax.Array, level: int) -> tuple[jax.Array, jax.Array]:
            """Features and the flows to both pictures, `[b, h, w, 4]`, corrected."""
            shrink = 2 ** (4 - level)
            coarse = scaled(flows, 1 / shrink) / shrink if shrink != 1 else flows
            # The flow between the pictures themselves, were the motion even, is twice that from the middle.
            seen = [
                look_up(forth, grid + coarse[..., 2:] / HALF, RADIUS),
                look_up(back, grid + coarse[..., :2] / HALF, RADIUS),
            ]
            update = Update(x.shape[-1], shrink, name=f"update{level}")
            more, change = update(x, coarse, jnp.concatenate(seen, -1))
            return x + more, flows + change

        near, far = maps[3]
        time = jnp.full((*near.shape[:3], 1), HALF)
        out = Decoder(CHANNELS[2] + 4, name="decoder4")(jnp.concatenate([near, far, time], -1), 2 * CHANNELS[3])
        x, flows = refine(out[..., 4:], out[..., :4], 4)
        for level in (3, 2):
            out = Decoder(CHANNELS[level - 2] + 4, name=f"decoder{level}")(
                self._meet(x, flows, maps[level - 1]), 3 * CHANNELS[level - 1]
            )
            x, flows = refine(out[..., 4:], out[..., :4] + 2 * scaled(flows, 2), level)

        out = Decoder(8 * FLOWS, name="decoder1")(self._meet(x, flows, maps[0]), 3 * CHANNELS[0])
        parts = jnp.split(out, [2 * FLOWS, 4 * FLOWS, 5 * FLOWS], axis=-1)
        to_first, to_second, mask, residual = (part.reshape(*out.shape[:3], FLOWS, -1) for part in parts)
        large = 2 * scaled(flows, 2)[..., None, :]
        to_first, to_second, mask = to_first + large[..., :2], to_second + large[..., 2:], nn.sigmoid(mask)
        drawn = jnp.stack(
            [
                mask[..., i, :] * warp(first, to_first[..., i, :])
                + (1 - mask[..., i, :]) * warp(second, to_second[..., i, :])
                + mean
                + residual[..., i, :]
                for i in range(FLOWS)
            ],
            axis=3,
        )
        merged = drawn.mean(3) + self._combine(drawn.reshape(*out.shape[:3], 3 * FLOWS))
        return jnp.clip(merged, 0, 1), to_first

    @staticmethod
    def _meet(x: jax.Array, flows: jax.Array, maps: tuple[jax.Array, jax.Array]) -> jax.Array:
        near, far = maps
        return jnp.concatenate([x, warp(near, flows[..., :2]), warp(far, flows[..., 2:]), flows], -1)

    def _combine(self, x: jax.Array) -> jax.Array:
        x = PReLU(name="comb_block.1")(conv(x, 6 * FLOWS, 3, "comb_block.0"))
        return conv(x, 3, 3, "comb_block.2")


def predict_middle(apply: Callable[..., tuple[jax.Array, jax.Array]], first: jax.Array, second: jax.Array) -> jax.Array:
    """The picture between two as VBench compares it: whole numbers, cut and not rounded.

    Args:
        apply: the network with its parameters.
        first: uint8 `[b, height, width, 3]`.
        second: the same.

    Returns:
        float32 `[b, height, width, 3]`, 0..255.
    """
    padded, inside = pad_to(jnp.concatenate([first, second]).astype(jnp.float32) / 255, MULTIPLE)
    middle, _ = apply(padded[: len(first)], padded[len(first) :])
    return jnp.floor(middle[:, *inside] * 255)
