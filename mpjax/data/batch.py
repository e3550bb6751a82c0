"""What a data source hands to training: one fixed-shape pytree, whatever the clips are."""

from typing import Any

import flax.struct

Array = Any  # numpy from a data source, jax.Array on a device


class Batch(flax.struct.PyTreeNode):
    """One training batch.

    Attributes:
        reference: latents of the first frame, float32 `[b, 1, h, w, c]`, normalised by the codec.
        segments: latents of s consecutive segments, float32 `[b, s, f, h, w, c]`.
        prompts: prompt bytes of each segment, int32 `[b, s, l]`: byte value + 1, 0 pads (`conditioning.tokens`).
        weight: loss weight of each segment, float32 `[b, s]`. 0 marks a segment that is *given* (its truth is the
            history of the next one under every forcing, no loss) or padding at the end of a short clip.
    """

    reference: Array
    segments: Array
    prompts: Array
    weight: Array
