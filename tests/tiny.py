"""Small networks and batches shared by the tests."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mpjax.data.batch import Batch
from mpjax.models.architecture import Architecture, Encoders, FramePack
from mpjax.models.memorypack import Denoiser
from mpjax.models.semanticpack import SemanticPack


def tiny_architecture(**changes) -> Architecture:
    """A complete network of a few thousand parameters: every part of the 13B, every width small."""
    fields = {
        "channels": 3,
        "heads": 2,
        "head_dim": 8,
        "dual_blocks": 1,
        "single_blocks": 1,
        "refiner_blocks": 1,
        "patch": 2,
        "rope_axes": (4, 2, 2),
        "guidance_embeds": False,
        "text_width": 12,
        "pooled_width": 10,
        "image_width": 14,
        "framepack": FramePack(segment_frames=2, history_frames=(1, 2, 4), rope_layout="global"),
        "memory": SemanticPack(patch=(1, 2, 2), depth=1, heads=2),
        "encoders": Encoders(prompt_bytes=8, bytes_per_token=2, width=8, depth=1, heads=2, image_patch=4),
        "dtype": "float32",
        "remat": "none",
        **changes,
    }
    return Architecture(**fields)


def tiny_batch(architecture: Architecture, batch: int = 2, segments: int = 3, seed: int = 0) -> Batch:
    """Random latents and prompts of 4×4 frames."""
    rng = np.random.default_rng(seed)
    f, c = architecture.framepack.segment_frames, architecture.channels
    length = architecture.encoders.prompt_bytes
    prompts = rng.integers(1, 257, (batch, segments, length)).astype(np.int32)
    prompts[:, :, length // 2 :] *= rng.integers(0, 2, (batch, segments, 1)).astype(np.int32)
    result = Batch(
        reference=rng.normal(size=(batch, 1, 4, 4, c)).astype(np.float32),
        segments=rng.normal(size=(batch, segments, f, 4, 4, c)).astype(np.float32),
        prompts=prompts,
        weight=np.ones((batch, segments), np.float32),
    )
    return jax.tree.map(jnp.asarray, result)


def perturbed_params(denoiser: Denoiser, batch: Batch, seed: int = 0, scale: float = 0.1) -> dict:
    """Random parameters of the right shapes (norm scales near 1), so that zero-initialised parts pass gradients too."""
    args = (jax.random.key(0), batch.prompts[:, 0], batch.reference, batch.segments[:, 0])
    shapes = nn.unbox(jax.eval_shape(denoiser.init, *args))
    rng = np.random.default_rng(seed)

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        deviation = scale if len(leaf.shape) < 2 else leaf.shape[-2] ** -0.5
        return jnp.asarray((path[-1].key == "scale") + deviation * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree.map_with_path(fill, shapes)
