"""TeaCache: leave the blocks out where their input has hardly changed since they last ran.

From step to step the tokens that enter the first block change little, and how much predicts how much the blocks' output
would change. A skipped step adds what the blocks added last time.

    u      = LN(latent tokens) · (1 + scale) + shift, as dual block 0 sees them
    rel    = mean |u − u_before| / mean |u_before|
    acc   += P(rel),  P a polynomial that was fitted to this network
    run the blocks where acc ≥ threshold, and set acc = 0

The first and the last step always run. Source: docs/backbone.md, section 2.5 (lllyasviel's FramePack).
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mpjax.errors import InputError
from mpjax.models.encoders import Condition
from mpjax.models.framepack import History
from mpjax.models.layers import Modulation, layer_norm
from mpjax.models.memory import Memory
from mpjax.models.memorypack import BlockInputs, Denoiser

POLYNOMIAL = (733.226126, -401.131952, 67.5869174, -3.149878, 0.0961237896)  # highest power first


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeaCache:
    """How much change is left out.

    Attributes:
        threshold: of the accumulated change; 0 runs every step. Upstream's default: 0.15, about half of 25 steps.
    """

    threshold: float = 0.15

    def __post_init__(self):
        if not self.threshold >= 0:
            raise InputError(f"threshold is {self.threshold}: it must be at least 0, which leaves nothing out")


class CacheState(flax.struct.PyTreeNode):
    """What one sampling of a segment remembers from step to step.

    Attributes:
        step: network calls so far, int32 scalar.
        change: acc, float32 scalar; 0 after a call that ran the blocks.
        signal: u of the step before, `[b, n, d]`.
        residual: what the blocks added when they last ran, `[b, n, d]`.
    """

    step: jax.Array
    change: jax.Array
    signal: jax.Array
    residual: jax.Array


class CachedDenoiser:
    """The velocity of a segment with a cache. One for each pass: a negative prompt has its own."""

    def __init__(self, denoiser: Denoiser, cache: TeaCache, steps: int):
        """`steps` network calls are to come for a segment."""
        self._denoiser, self._cache, self._steps = denoiser, cache, steps

    def start(self, params: dict, x_t: jax.Array, history: History, condition: Condition, memory: Memory) -> CacheState:
        """The state before the first call, for noisy latents `[b, f, h, w, c]`."""
        t = jnp.zeros(x_t.shape[:1])
        tokens = jax.eval_shape(self._denoiser.embed, params, x_t, t, history, condition, memory).latents
        zero = jnp.zeros((), jnp.int32)
        signal, residual = jnp.zeros(tokens.shape, tokens.dtype), jnp.zeros(tokens.shape, self._block_dtype)
        return CacheState(step=zero, change=jnp.zeros(()), signal=signal, residual=residual)

    def velocity(
        self,
        params: dict,
        x_t: jax.Array,
        t: jax.Array,
        history: History,
        condition: Condition,
        memory: Memory,
        state: CacheState,
    ) -> tuple[jax.Array, CacheState]:
        """As `Denoiser.velocity`, and the state for the next call."""
        inputs = self._denoiser.embed(params, x_t, t, history, condition, memory)
        signal = _first_modulated(params, inputs)
        before = jnp.abs(state.signal).mean(dtype=jnp.float32)
        relative = jnp.abs(signal - state.signal).mean(dtype=jnp.float32) / jnp.maximum(before, 1e-30)
        change = state.change + jnp.polyval(jnp.asarray(POLYNOMIAL), relative)
        ends = (state.step == 0) | (state.step == self._steps - 1)
        run = ends | (change >= self._cache.threshold)

        latents = inputs.latents.astype(self._block_dtype)

        def blocks() -> tuple[jax.Array, jax.Array]:
            tokens = self._denoiser.apply(params, inputs, method="run_blocks")
            return tokens, tokens - latents

        tokens, residual = jax.lax.cond(run, blocks, lambda: (latents + state.residual, state.residual))
        velocity = self._denoiser.project(params, tokens, inputs, x_t)
        after = CacheState(
            step=state.step + 1,
            change=jnp.where(run, 0.0, change),
            signal=signal,
            residual=residual,
        )
        return velocity, after

    @property
    def _block_dtype(self) -> jnp.dtype:
        return jnp.dtype(self._denoiser.architecture.dtype)


def _first_modulated(params: dict, inputs: BlockInputs) -> jax.Array:
    """u: layer 0 of the stacked modulation, applied as `mmdit.DualBlock` does."""
    first = jax.tree.map(lambda leaf: leaf[0], params["blocks"]["dual_blocks"]["norm1"])
    modulation: Any = Modulation(6, dtype=inputs.temb.dtype).apply({"params": first}, inputs.temb)
    shift, scale, *_ = modulation
    return layer_norm(inputs.latents) * (1 + scale) + shift
