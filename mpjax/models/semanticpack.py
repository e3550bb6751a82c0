"""SemanticPack: long-term memory ψ of constant size (paper, Eq. 1).

    ψ_{n+1} = Squeeze(ψ_n, Memorize(x^n))

Squeeze is one cross-attention whose query is the memorised segment and whose keys and values are ψ_n (the paper's
variant A). ψ_0 is the prompt and the reference image.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.errors import InputError
from mpjax.models.layers import AffineLayerNorm, FeedForward
from mpjax.models.memorize import Attention, Memorizing
from mpjax.models.memory import Memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemanticPack(Memorizing):
    """ψ_{n+1} = Squeeze(ψ_n, Memorize(x^n)) (paper, Eq. 1). All fields are the paper's open points.

    Attributes:
        residual: add the memorised tokens (Squeeze's query) to what Squeeze reads from ψ.
        mlp: an MLP after Squeeze's cross-attention.
        timestep: flow time t in [0, 1] at which the token refiner reads the prompt for ψ_0, once a video.
    """

    kind: ClassVar[str] = "semanticpack"
    residual: bool = True
    mlp: bool = True
    timestep: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 <= self.timestep <= 1.0:
            raise InputError(f"timestep is {self.timestep}: flow time lies between 0 and 1")


class Squeeze(nn.Module):
    """Reads ψ_n with the memorised segment as query and returns the tokens of ψ_{n+1}."""

    spec: SemanticPack
    mlp_width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, memorized: jax.Array, memory: Memory) -> jax.Array:
        """memorized `[b, n, d]` → `[b, n, d]`; invalid tokens of ψ_n are masked."""
        spec = self.spec
        query = AffineLayerNorm(name="norm_query")(memorized)
        source = AffineLayerNorm(name="norm_memory")(memory.tokens)
        read = Attention(spec.heads, self.dtype, name="attention")(query, source, memory.valid)
        x = memorized + read if spec.residual else read
        if spec.mlp:
            x = x + FeedForward(self.mlp_width, dtype=self.dtype, name="mlp")(AffineLayerNorm(name="norm_mlp")(x))
        return AffineLayerNorm(name="norm_out")(x)
