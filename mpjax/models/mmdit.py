"""The MM-DiT: dual-stream and single-stream blocks, scanned over depth and rematerialised, and the output head.

Source: docs/backbone.md, sections 1.3 and 1.8 to 1.11 (diffusers `HunyuanVideoTransformer3DModel`, 0.42).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mpjax.models.architecture import Architecture
from mpjax.models.attention import attention, split_heads
from mpjax.models.layers import Dense, EmbeddingMLP, FeedForward, Modulation, RMSNorm, gelu, layer_norm, sinusoid
from mpjax.models.plain_attention import SAVED
from mpjax.models.rope import Table, apply_rope
from mpjax.models.streams import join_streams, pad_stream, part_streams, table_of_both, table_of_first
from mpjax.parallel.host_memory import HOST
from mpjax.parallel.rules import HIDDEN, TOKENS, constrain

BLOCK_INPUT = "block_input"  # what a remat policy calls the tokens that a block reads


class TimeTextEmbedding(nn.Module):
    """The conditioning vector `temb`: timestep + distilled guidance + pooled prompt."""

    width: int
    guidance_embeds: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, timestep: jax.Array, guidance: jax.Array | None, pooled: jax.Array) -> jax.Array:
        """timestep `[b]` (1000·σ), guidance `[b]` (1000·scale) or None, pooled `[b, dp]` → `[b, d]`."""
        embed = EmbeddingMLP(self.width, dtype=self.dtype, name="timestep_embedder")(sinusoid(timestep))
        if self.guidance_embeds:
            if guidance is None:
                raise ValueError("this network embeds the guidance scale: pass guidance [b] = 1000 · scale")
            embed += EmbeddingMLP(self.width, dtype=self.dtype, name="guidance_embedder")(sinusoid(guidance))
        return embed + EmbeddingMLP(self.width, dtype=self.dtype, name="text_embedder")(pooled)


class QKV(nn.Module):
    """Per-head queries, keys and values, queries and keys RMS-normalised."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`[b, n, d]` → three `[b, n, heads, head_dim]`."""
        q, k, v = (
            split_heads(Dense(x.shape[-1], ("embed", "heads"), dtype=self.dtype, name=name)(x), self.heads)
            for name in ("to_q", "to_k", "to_v")
        )
        return RMSNorm(name="norm_q")(q), RMSNorm(name="norm_k")(k), v


class DualBlock(nn.Module):
    """Latents and context keep their own weights and meet in one joint attention over [latents, context]."""

    heads: int
    mlp_width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, streams: tuple[jax.Array, jax.Array], temb: jax.Array, table: Table, mask: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        """streams (latents `[b, n, d]`, context `[b, m, d]`), temb `[b, d]`, key mask bool `[b, n + m]`."""
        x, c = (checkpoint_name(stream, BLOCK_INPUT) for stream in streams)
        n, d = x.shape[1:]
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = Modulation(6, dtype=self.dtype, name="norm1")(temb)
        c_shift_a, c_scale_a, c_gate_a, c_shift_m, c_scale_m, c_gate_m = Modulation(
            6, dtype=self.dtype, name="norm1_context"
        )(temb)
        q, k, v = QKV(self.heads, self.dtype, name="qkv")(layer_norm(x) * (1 + scale_a) + shift_a)
        cq, ck, cv = QKV(self.heads, self.dtype, name="qkv_context")(layer_norm(c) * (1 + c_scale_a) + c_shift_a)
        q, k = apply_rope(q, table), apply_rope(k, table)
        q, k, v = (join_streams(*pair) for pair in ((q, cq), (k, ck), (v, cv)))
        out, c_out = part_streams(attention(q, k, v, mask), n)
        x = x + gate_a * Dense(d, ("heads", "embed"), dtype=self.dtype, name="to_out")(out)
        c = c + c_gate_a * Dense(d, ("heads", "embed"), dtype=self.dtype, name="to_out_context")(c_out)
        h = layer_norm(x) * (1 + scale_m) + shift_m
        x = x + gate_m * FeedForward(self.mlp_width, dtype=self.dtype, name="ff")(h)
        h = layer_norm(c) * (1 + c_scale_m) + c_shift_m
        c = c + c_gate_m * FeedForward(self.mlp_width, dtype=self.dtype, name="ff_context")(h)
        return (constrain(x, TOKENS), constrain(c, TOKENS)), None


class SingleBlock(nn.Module):
    """One stream [latents, context]; attention and MLP run in parallel and share one output projection."""

    heads: int
    mlp_width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, temb: jax.Array, table: Table, mask: jax.Array) -> tuple[jax.Array, None]:
        """z `[b, n + m, d]`; RoPE turns the first tokens, as many as the table has, RMS norm covers all of them."""
        z = checkpoint_name(z, BLOCK_INPUT)
        shift, scale, gate = Modulation(3, dtype=self.dtype, name="norm")(temb)
        h = layer_norm(z) * (1 + scale) + shift
        mlp = Dense(self.mlp_width, ("embed", "mlp"), dtype=self.dtype, name="proj_mlp")(h)
        mlp = gelu(constrain(mlp, HIDDEN))
        q, k, v = QKV(self.heads, self.dtype, name="qkv")(h)
        out = attention(apply_rope(q, table), apply_rope(k, table), v, mask)
        merged = jnp.concatenate([out, mlp], -1)
        z = z + gate * Dense(z.shape[-1], ("mlp", "embed"), dtype=self.dtype, name="proj_out")(merged)
        return constrain(z, TOKENS), None


_KEPT = {  # between the forward and the backward pass of a block, besides its input
    "full": None,
    "dots": jax.checkpoint_policies.save_from_both_policies(  # and what attention keeps
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable, jax.checkpoint_policies.save_only_these_names(SAVED)
    ),
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[BLOCK_INPUT],
        offload_src="device",
        offload_dst=HOST,
    ),
}


def _stack(block: type[nn.Module], length: int, remat: str):
    """`block` scanned `length` times over stacked parameters; the scan keeps compile time independent of depth."""
    if remat != "none":
        block = nn.remat(block, prevent_cse=False, policy=_KEPT[remat])
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),
        length=length,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )


class MMDiT(nn.Module):
    """The stack of blocks: latent tokens and context tokens in, latent tokens out."""

    architecture: Architecture

    @nn.compact
    def __call__(
        self, latents: jax.Array, context: jax.Array, context_mask: jax.Array, temb: jax.Array, table: Table
    ) -> jax.Array:
        """latents `[b, n, d]`, context `[b, m, d]` with mask bool `[b, m]`, temb `[b, d]` → latents `[b, n, d]`."""
        arch = self.architecture
        dtype = jnp.dtype(arch.dtype)
        n = latents.shape[1]
        valid = jnp.ones(latents.shape[:2], bool)
        mask = join_streams(pad_stream(valid), pad_stream(context_mask))
        x, c = (constrain(pad_stream(y.astype(dtype)), TOKENS) for y in (latents, context))
        padded, m = x.shape[1], c.shape[1]
        dual = _stack(DualBlock, arch.dual_blocks, arch.remat)(arch.heads, arch.mlp_width, dtype, name="dual_blocks")
        (x, c), _ = dual((x, c), temb, table_of_first(table), mask)
        single = _stack(SingleBlock, arch.single_blocks, arch.remat)(
            arch.heads, arch.mlp_width, dtype, name="single_blocks"
        )
        z, _ = single(join_streams(x, c), temb, table_of_both(table, m), mask)
        return part_streams(z, padded)[0][:, :n]


class OutputHead(nn.Module):
    """norm_out and proj_out: the paper trains only these in its Direct Forcing stage. Runs in float32."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array) -> jax.Array:
        """x `[b, n, d]` → `[b, n, features]`; the modulation here is (scale, shift), in that order."""
        scale, shift = Modulation(2, name="norm_out")(temb.astype(jnp.float32))
        h = layer_norm(x.astype(jnp.float32)) * (1 + scale) + shift
        return Dense(self.features, ("embed", None), kernel_init=nn.initializers.zeros, name="proj_out")(h)
