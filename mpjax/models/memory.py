"""ψ, what a video remembers beyond FramePack's reach, as every kind of long-term memory holds it."""

import flax.struct
import jax
import jax.numpy as jnp


class Memory(flax.struct.PyTreeNode):
    """ψ. Its size never changes, so a video of any length costs the same per segment.

    Attributes:
        tokens: `[b, m, d]`.
        valid: bool `[b, m]`; ψ_0 and ψ_n differ in length, and prompts in theirs.
    """

    tokens: jax.Array
    valid: jax.Array


def pad_memory(tokens: jax.Array, valid: jax.Array, size: int) -> Memory:
    """Pads `[b, n, d]` tokens with invalid zeros to `size`."""
    missing = size - tokens.shape[1]
    return Memory(tokens=jnp.pad(tokens, ((0, 0), (0, missing), (0, 0))), valid=jnp.pad(valid, ((0, 0), (0, missing))))
