"""MUSIQ (2108.05997), the multi-scale image quality transformer, as VBench's imaging quality uses it (trained on SPAQ).

A picture is seen at three sizes: longer side 224, 384, and as it is. Each is cut into patches of 32 x 32; each patch
goes through a small ResNet and becomes a token, with a learned position out of a 10 x 10 grid that is stretched over
the picture (the hashed position), and a learned size.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mpjax.evaluation.vbench.resize import resize

PATCH = 32
LONGER_SIDES = (224, 384)
LONGEST = 512
GRID = 10
WIDTH, HEADS, DEPTH, MLP = 384, 6, 14, 1152


def shrink(images: jax.Array) -> jax.Array:
    """Longer side at most 512, bilinear without antialiasing; 0..255 → −1..1."""
    height, width = images.shape[1:3]
    if max(height, width) > LONGEST:
        scale = LONGEST / max(height, width)
        images = resize(images, (int(scale * height), int(scale * width)), "bilinear", antialias=False)
    return (images / 255 - 0.5) * 2


def patches(images: jax.Array) -> tuple[jax.Array, np.ndarray]:
    """Pictures `[b, h, w, 3]`, padded with zeros on both sides to whole patches.

    Returns:
        patches `[b, n, 32, 32, 3]` row by row, and the index of each one's hashed position, `[n]`.
    """
    b, height, width = images.shape[:3]
    rows, columns = -(-height // PATCH), -(-width // PATCH)
    down, across = rows * PATCH - height, columns * PATCH - width
    padded = jnp.pad(images, ((0, 0), (down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0)))
    cut = padded.reshape(b, rows, PATCH, columns, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    # In float32, as the original rounds.
    row, column = (
        np.floor(np.arange(count, dtype=np.float32) * np.float32(GRID / count)).astype(int) for count in (rows, columns)
    )
    return cut.reshape(b, rows * columns, PATCH, PATCH, 3), (row[:, None] * GRID + column[None]).reshape(-1)


def scales(images: jax.Array) -> tuple[jax.Array, np.ndarray, np.ndarray, np.ndarray]:
    """All patches of a picture at all sizes.

    The two small sizes always have 7² and 12² places; those that a picture which is not square does not fill are zeros,
    masked as keys and as queries.

    Returns:
        patches `[b, n, 32, 32, 3]`, positions, sizes and which are there, each `[n]`.
    """
    height, width = images.shape[1:3]
    cut, positions, sizes, there = [], [], [], []
    for size, longer in enumerate((*LONGER_SIDES, None)):
        if longer is None:
            scaled = images
        else:
            ratio = longer / max(height, width)
            scaled = resize(images, (round(height * ratio), round(width * ratio)), "bicubic", antialias=False)
        found, position = patches(scaled)
        count = len(position) if longer is None else math.ceil(longer / PATCH) ** 2
        empty = count - len(position)
        cut.append(jnp.pad(found, ((0, 0), (0, empty), (0, 0), (0, 0), (0, 0))))
        positions.append(np.pad(position, (0, empty)))
        # A place that is empty has position 0 and size 0.
        sizes.append(np.pad(np.full(len(position), size), (0, empty)))
        there.append(np.arange(count) < len(position))
    return jnp.concatenate(cut, axis=1), np.concatenate(positions), np.concatenate(sizes), np.concatenate(there)


class StandardConv(nn.Module):
    """A convolution whose kernel is standardised for each output (1903.10520), padded as TensorFlow does."""

    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, c]` → `[b, ⌈h / stride⌉, ⌈w / stride⌉, features]`."""
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (self.size, self.size, x.shape[-1], self.features)
        )
        kernel = kernel - kernel.mean((0, 1, 2))
        kernel = kernel / (kernel.std((0, 1, 2), ddof=1) + 1e-5)
        return jax.lax.conv_general_dilated(
            x, kernel, (self.stride, self.stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


class TransformerBlock(nn.Module):
    """x + attention(norm x), then x + MLP(norm x)."""

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, None]:
        """Tokens `[b, n, 384]`, which are there `[n]`."""
        y = nn.LayerNorm(epsilon=1e-6, name="norm1", use_fast_variance=False)(x)
        q, k, v = (
            nn.Dense(WIDTH, name=f"attention.{each}")(y).reshape(*y.shape[:2], HEADS, -1)
            for each in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (WIDTH // HEADS) ** -0.5
        scores = jnp.where(mask[:, None] & mask[None], scores, -1e3)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores), v).reshape(x.shape)
        x = x + nn.Dense(WIDTH, name="attention.out")(mixed)
        y = nn.LayerNorm(epsilon=1e-6, name="norm2", use_fast_variance=False)(x)
        return x + nn.Dense(WIDTH, name="mlp.fc2")(nn.gelu(nn.Dense(MLP, name="mlp.fc1")(y), approximate=False)), None


class MUSIQ(nn.Module):
    """A picture → its mean opinion score, 0 to 100."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """uint8 `[b, height, width, 3]` → `[b]`."""
        cut, position, size, there = scales(shrink(images))
        b, n = cut.shape[:2]

        def group_norm(name: str, x: jax.Array, eps: float = 1e-4) -> jax.Array:
            return nn.GroupNorm(32, epsilon=eps, name=name, use_fast_variance=False)(x)

        x = StandardConv(64, 7, 2, name="conv_root")(cut.reshape(b * n, PATCH, PATCH, 3))
        x = nn.relu(group_norm("gn_root", x, 1e-6))
        # Padded by zeros, as the convolutions, and not by −∞; after the ReLU that is the same.
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        identity = group_norm("block1.gn_proj", StandardConv(256, 1, name="block1.conv_proj")(x))
        y = nn.relu(group_norm("block1.gn1", StandardConv(64, 1, name="block1.conv1")(x)))
        y = nn.relu(group_norm("block1.gn2", StandardConv(64, 3, name="block1.conv2")(y)))
        y = group_norm("block1.gn3", StandardConv(256, 1, name="block1.conv3")(y))
        x = nn.Dense(WIDTH, name="embedding")(nn.relu(identity + y).reshape(b, n, -1))

        encoder = "transformer_encoder"
        table = self.param(f"{encoder}.posembed_input.position_emb", nn.initializers.normal(), (1, GRID * GRID, WIDTH))
        sizes = self.param(f"{encoder}.scaleembed_input.scale_emb", nn.initializers.normal(), (3, WIDTH))
        token = self.param(f"{encoder}.cls", nn.initializers.zeros, (1, 1, WIDTH))
        x = x + table[0][position] + sizes[size]
        x = jnp.concatenate([jnp.broadcast_to(token, (b, 1, WIDTH)), x], axis=1)
        mask = jnp.concatenate([jnp.ones(1, bool), jnp.asarray(there)])
        blocks = nn.scan(
            TransformerBlock,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=DEPTH,
        )
        x, _ = blocks(name=encoder + ".transformer.encoderblock_{i}")(x, mask)
        x = nn.LayerNorm(epsilon=1e-6, name=f"{encoder}.encoder_norm", use_fast_variance=False)(x[:, 0])
        return nn.Dense(1, name="head")(x)[:, 0]
