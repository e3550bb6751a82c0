"""RAFT (2003.12039), the large one: optical flow by repeated look-ups in the correlation of all pairs of features."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.evaluation.vbench.flow_layers import (
    BatchNorm,
    conv,
    coordinates,
    correlation_pyramid,
    instance_norm,
    look_up,
    pad_to,
)

HIDDEN = CONTEXT = 128
LEVELS, RADIUS = 4, 4
ITERATIONS = 20  # VBench's
SHRINK = 8


class Encoder(nn.Module):
    """Features at an eighth of the size; instance norm, or batch norm for the context."""

    features: int
    batch_norm: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, 3]` → `[b, h / 8, w / 8, features]`."""

        def norm(name: str, x: jax.Array) -> jax.Array:
            return BatchNorm(name=name)(x) if self.batch_norm else instance_norm(x)

        x = nn.relu(norm("norm1", conv(x, 64, 7, "conv1", 2)))
        for layer, (width, stride) in enumerate(((64, 1), (96, 2), (128, 2)), start=1):
            for block in range(2):
                name, stride = f"layer{layer}.{block}", stride if block == 0 else 1
                y = nn.relu(norm(f"{name}.norm1", conv(x, width, 3, f"{name}.conv1", stride)))
                y = nn.relu(norm(f"{name}.norm2", conv(y, width, 3, f"{name}.conv2")))
                if stride != 1:
                    x = norm(f"{name}.downsample.1", conv(x, width, 1, f"{name}.downsample.0", stride))
                x = nn.relu(x + y)
        return conv(x, self.features, 1, "conv2")


class Update(nn.Module):
    """One refinement of the flow: motion features, a GRU along rows and then columns, and what is added to the flow."""

    @nn.compact
    def __call__(
        self, hidden: jax.Array, context: jax.Array, correlation: jax.Array, flow: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """All `[b, h / 8, w / 8, …]` → the new hidden state and the flow's change."""
        seen = nn.relu(conv(correlation, 256, 1, "encoder.convc1"))
        seen = nn.relu(conv(seen, 192, 3, "encoder.convc2"))
        moved = nn.relu(conv(flow, 128, 7, "encoder.convf1"))
        moved = nn.relu(conv(moved, 64, 3, "encoder.convf2"))
        motion = nn.relu(conv(jnp.concatenate([seen, moved], -1), 126, 3, "encoder.conv"))
        inputs = jnp.concatenate([context, motion, flow], -1)
        for part, size in ((1, (1, 5)), (2, (5, 1))):
            both = jnp.concatenate([hidden, inputs], -1)
            z = nn.sigmoid(conv(both, HIDDEN, size, f"gru.convz{part}"))
            r = nn.sigmoid(conv(both, HIDDEN, size, f"gru.convr{part}"))
            q = jnp.tanh(conv(jnp.concatenate([r * hidden, inputs], -1), HIDDEN, size, f"gru.convq{part}"))
            hidden = (1 - z) * hidden + z * q
        change = conv(nn.relu(conv(hidden, 256, 3, "flow_head.conv1")), 2, 3, "flow_head.conv2")
        return hidden, change


class UpsampleMask(nn.Module):
    """How each pixel mixes the flows of 3 x 3 coarse ones."""

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """`[b, h, w, 128]` → `[b, h, w, 576]`, before the softmax."""
        return 0.25 * conv(nn.relu(conv(hidden, 256, 3, "0")), 64 * 9, 1, "2")


class RAFT(nn.Module):
    """Two pictures → the optical flow from the first to the second."""

    @nn.compact
    def __call__(self, first: jax.Array, second: jax.Array) -> jax.Array:
        """uint8 `[b, height, width, 3]` each → flow (x, y) in pixels, float32 `[b, height', width', 2]`.

        The sides are those of the picture padded to multiples of 8: VBench measures the padded flow.
        """
        padded, _ = pad_to(jnp.concatenate([first, second]).astype(jnp.float32), SHRINK)
        images = 2 * (padded / 255) - 1
        b = len(first)
        features = Encoder(256, batch_norm=False, name="fnet")(images)
        pyramid = correlation_pyramid(features[:b], features[b:], LEVELS, RADIUS)
        hidden, context = jnp.split(Encoder(HIDDEN + CONTEXT, batch_norm=True, name="cnet")(images[:b]), 2, axis=-1)
        hidden, context = jnp.tanh(hidden), nn.relu(context)
        grid = coordinates(*hidden.shape[1:3])

        def step(update: Update, carry: tuple[jax.Array, jax.Array], _: None) -> tuple:
            hidden, flow = carry
            hidden, change = update(hidden, context, look_up(pyramid, grid + flow, RADIUS), flow)
            return (hidden, flow + change), None

        refine = nn.scan(step, variable_broadcast="params", split_rngs={"params": False}, length=ITERATIONS)
        flow = jnp.zeros((*hidden.shape[:3], 2))
        (hidden, flow), _ = refine(Update(name="update_block"), (hidden, flow), None)
        mask = UpsampleMask(name="update_block.mask")(hidden)
        return upsample(flow, mask)


def upsample(flow: jax.Array, mask: jax.Array) -> jax.Array:
    """Flow at full size, `[b, 8 h, 8 w, 2]`: each pixel a convex mean of 8 times the 3 x 3 coarse flows around it."""
    b, height, width, _ = flow.shape
    weights = nn.softmax(mask.reshape(b, height, width, 9, SHRINK, SHRINK), axis=3)
    around = jnp.pad(SHRINK * flow, ((0, 0), (1, 1), (1, 1), (0, 0)))
    near = jnp.stack([around[:, y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=3)
    fine = jnp.einsum("bhwkij,bhwkc->bhiwjc", weights, near)
    return fine.reshape(b, SHRINK * height, SHRINK * width, 2)
