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
        prompts: of each segment. Bytes for the built-in encoders, int32 `[b, s, l]`: byte value + 1, 0 pads
            (`conditioning.tokens`); or embeddings made before, a `Condition` whose arrays begin with `[b, s, …]`.
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

    @property
    def prompts_by_segment(self) -> Array | Condition:
        """The segment axis in front, `[s, b, …]`, as a scan reads them."""
        return jax.tree.map(lambda x: x.swapaxes(0, 1), self.prompts)
