"""The 13-billion-parameter network, abstractly: its size, and that tracing it is quick."""

import functools
import time

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.interop.transformer_names import parameter_shapes
from mpjax.models.architecture import Architecture
from mpjax.models.encoders import Condition
from mpjax.models.framepack import empty_history
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser

F1 = Architecture(memory=None, encoders=None)


def test_forward_at_480_by_832_traces_within_half_a_minute():
    """Scanned layers: the trace holds one dual and one single block, whatever the depth."""
    shapes = parameter_shapes(F1)
    assert sum(leaf.size for leaf in jax.tree.leaves(nn.unbox(shapes))) == 12_874_314_816
    spec = jax.ShapeDtypeStruct
    reference = spec((1, 1, 60, 104, 16), jnp.float32)
    history = jax.eval_shape(functools.partial(empty_history, spec=F1.framepack), reference)
    condition = Condition(
        text=spec((1, 512, 4096), jnp.bfloat16),
        text_mask=spec((1, 512), bool),
        pooled=spec((1, 768), jnp.bfloat16),
        image=spec((1, 729, 1152), jnp.bfloat16),
    )
    memory = Memory(tokens=spec((1, 0, F1.width), jnp.float32), valid=spec((1, 0), bool))
    x_t, t = spec((1, 9, 60, 104, 16), jnp.float32), spec((1,), jnp.float32)
    start = time.monotonic()
    traced = jax.jit(Denoiser(F1, guidance=10.0).velocity).trace(shapes, x_t, t, history, condition, memory)
    seconds = time.monotonic() - start
    assert traced.out_info.shape == x_t.shape
    assert seconds < 30
    assert len(str(traced.jaxpr)) < 200_000  # 60 unrolled blocks would be some ten times that
