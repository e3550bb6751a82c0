"""Any memory behind a velocity that is linear but for what it reads from ψ: small enough to unroll."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mpjax.models.encoders import Condition
from mpjax.models.framepack import empty_history
from mpjax.models.memory import MemoryKind
from tests.tiny import tiny_architecture
from tests.training import linear_denoiser

WIDTH = 16


class MemoryDenoiser(linear_denoiser.LinearDenoiser):
    """velocity = w·x + b + 2·tanh(mean of the tokens read · u); prompt and image are linear in the data."""

    def __init__(self, spec: MemoryKind):
        object.__setattr__(self, "calls", None)
        object.__setattr__(self, "architecture", tiny_architecture(framepack=linear_denoiser.PACK, memory=spec))
        object.__setattr__(self, "memory", spec.module(WIDTH, 32, jnp.float32))

    def parameters(self, seed=0, fresh=False):
        """Random ones, or those of the memory as a training starts with them."""
        rng = np.random.default_rng(seed)
        encoder = jnp.asarray(rng.normal(size=(12, WIDTH)), jnp.float32)
        reference, prompts = jnp.zeros((1, 1, *linear_denoiser.SHAPE[1:])), jnp.zeros((1, 4), jnp.int32)
        context = self._context({"frame_encoder": {"e": encoder}}, reference, prompts)

        def everything(module):
            memory = module.start(1, context, linear_denoiser.SHAPE[:3])
            memory = module.update(memory, jnp.zeros((1, *linear_denoiser.SHAPE)))
            return module.read(memory, *self._read(prompts, reference))

        memory = nn.unbox(self.memory.init(jax.random.key(seed), method=everything)["params"])
        if not fresh:
            draw = lambda x: jnp.asarray(rng.normal(size=x.shape) * x.shape[0] ** -0.5, jnp.float32)  # noqa: E731
            memory = jax.tree.map(draw, memory)
        first = linear_denoiser.parameters(seed)
        head = {**first["head"], "u": jnp.asarray(rng.normal(size=(WIDTH, 3)) / 4, jnp.float32)}
        return {**memory, **first, "head": head, "frame_encoder": {"e": encoder}}

    def _context(self, params, reference, prompts):
        """One image token and two of text, the second one padding."""
        image = reference.reshape(reference.shape[0], 1, -1) @ params["frame_encoder"]["e"]
        text = image * 0.5 + prompts.sum(1)[:, None, None]
        mask = jnp.broadcast_to(jnp.array([True, False]), (reference.shape[0], 2))
        return lambda t: (image, jnp.concatenate([text + t, text], 1), mask)

    def _read(self, prompts, reference):
        return prompts[:, :1] * jnp.ones((1, 10)), reference.reshape(reference.shape[0], 1, -1) * jnp.ones((1, 2, 1))

    def condition(self, params, prompts, reference):
        pooled, image = self._read(prompts, reference)
        return Condition(text=pooled, text_mask=pooled, pooled=pooled, image=image)

    def start(self, params, prompts, reference, total=0):
        history = empty_history(reference, linear_denoiser.PACK, total)
        return history, self.init_memory(params, prompts, reference)

    def init_memory(self, params, prompts, reference):
        context = self._context(params, reference, prompts)
        size = linear_denoiser.SHAPE[:3]
        return self.memory.apply({"params": {}}, reference.shape[0], context, size, method="start")

    def update_memory(self, params, memory, segment):
        return self.memory.apply({"params": params}, memory, segment, method="update")

    def velocity(self, params, x_t, t, history, condition, memory):
        tokens, valid = self.memory.apply({"params": params}, memory, condition.pooled, condition.image, method="read")
        mean = jnp.where(valid[..., None], tokens, 0.0).sum(1) / jnp.maximum(valid.sum(1), 1)[:, None]
        read = 2.0 * jnp.tanh(mean @ params["head"]["u"])
        return super().velocity(params, x_t, t, history, condition, memory) + read[:, None, None, None]
