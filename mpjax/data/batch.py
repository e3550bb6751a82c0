"""What a data source hands to training: one fixed-shape pytree, whatever the clips are."""

from typing import Any

import flax.struct
import jax

from mpjax.models.encoders import Condition

Array = Any  # numpy from a data source, jax.Array on a device


class Batch(flax.struct.PyTreeNode):
    """One training batch.

    Attributes:
        reference: latents of the first frame, float32 `[b, 1, h, w, c]`, normalised by the codec.
        segments: latents of s consecutive segments, float32 `[b, s, f, h, w, c]`.
        prompts: one a segment, or one for the whole video: `[b, s, …]`, or `[b, 1, …]`, which is never repeated in
            memory. Bytes for the built-in encoders, int32 `[…, l]`: byte value + 1, 0 pads (`conditioning.tokens`); or
            embeddings made before, a `Condition`.
        weight: loss weight of each segment, float32 `[b, s]`. 0 marks a segment that is *given* (its truth is the
            history of the next one under every forcing, no loss) or padding at the end of a short clip.
    """

    reference: Array
    segments: Array
    prompts: Array | Condition
    weight: Array

    @property
    def first_prompts(self) -> Array | Condition:
        """Those of the first segment, `[b, …]`."""
        return jax.tree.map(lambda x: x[:, 0], self.prompts)

    def prompts_of(self, segment: int | jax.Array) -> Array | Condition:
        """Those of a segment, `[b, …]`; its number may be traced, as in a scan."""

        def pick(x: Array) -> Array:
            return x[:, 0] if x.shape[1] == 1 else jax.lax.dynamic_index_in_dim(x, segment, 1, keepdims=False)

        return jax.tree.map(pick, self.prompts)
