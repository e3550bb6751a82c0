"""The vision transformers of DINO (2104.14294), DINOv2 (2304.07193) and CLIP (2103.00020): one module.

They differ in the activation, in a norm before the blocks (CLIP), in a scale of each branch (DINOv2) and in what is
read off the class token at the end.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.evaluation.vbench.resize import interpolate_positions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """A vision transformer.

    Attributes:
        patch: pixels of a patch's side.
        width: of a token.
        depth: blocks.
        grid: patches of a side for which there are positions.
        names: of the layers in the checkpoint.
        eps: of the norms.
        quick_gelu: x · sigmoid(1.702 x) instead of the exact GELU.
        layer_scale: each branch is multiplied by a learned vector.
        norm_last: the class token is normalised at the end.
        out: width of the projection of the class token, None where there is none.
    """

    patch: int
    width: int
    depth: int
    grid: int
    names: "Names"
    eps: float
    quick_gelu: bool = False
    layer_scale: bool = False
    norm_last: bool = True
    out: int | None = None

    @property
    def heads(self) -> int:
        """All of these networks have heads of 64."""
        return self.width // 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
    """What a checkpoint calls the layers; `norm_first` is None where there is none.

    `lead` is the axis of one that a checkpoint puts before its class token and positions, if it does.
    """

    lead: tuple[int, ...]
    patch: str
    patch_bias: bool
    token: str
    positions: str
    norm_first: str | None
    block: str
    norm_1: str
    qkv: tuple[str, str]  # weight and bias
    out: str
    norm_2: str
    up: str
    down: str
    norm_last: str
    projection: str = "proj"


DINO_NAMES = Names(
    lead=(1,),
    patch="patch_embed.proj",
    patch_bias=True,
    token="cls_token",
    positions="pos_embed",
    norm_first=None,
    block="blocks.{i}",
    norm_1="norm1",
    qkv=("attn.qkv.weight", "attn.qkv.bias"),
    out="attn.proj",
    norm_2="norm2",
    up="mlp.fc1",
    down="mlp.fc2",
    norm_last="norm",
)
CLIP_NAMES = Names(
    lead=(),
    patch="conv1",
    patch_bias=False,
    token="class_embedding",
    positions="positional_embedding",
    norm_first="ln_pre",
    block="transformer.resblocks.{i}",
    norm_1="ln_1",
    qkv=("attn.in_proj_weight", "attn.in_proj_bias"),
    out="attn.out_proj",
    norm_2="ln_2",
    up="mlp.c_fc",
    down="mlp.c_proj",
    norm_last="ln_post",
)


class Block(nn.Module):
    """x + attention(norm x), then x + MLP(norm x)."""

    config: ViTConfig

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        """Tokens `[b, n, d]` → the same."""
        config, names = self.config, self.config.names
        d = config.width

        def norm(name: str, x: jax.Array) -> jax.Array:
            return nn.LayerNorm(epsilon=config.eps, name=name, use_fast_variance=False)(x)

        def scaled(name: str, branch: jax.Array) -> jax.Array:
            return branch * self.param(name, nn.initializers.ones, (d,)) if config.layer_scale else branch

        weight = self.param(names.qkv[0], nn.initializers.normal(), (3 * d, d))
        bias = self.param(names.qkv[1], nn.initializers.zeros, (3 * d,))
        qkv = norm(names.norm_1, x) @ weight.T + bias
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, config.heads, 64), 2, 0)
        mixed = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        x = x + scaled("ls1.gamma", nn.Dense(d, name=names.out)(mixed))
        hidden = nn.Dense(4 * d, name=names.up)(norm(names.norm_2, x))
        hidden = hidden * nn.sigmoid(1.702 * hidden) if config.quick_gelu else nn.gelu(hidden, approximate=False)
        return x + scaled("ls2.gamma", nn.Dense(d, name=names.down)(hidden)), None


class ViT(nn.Module):
    """A picture → the feature of its class token."""

    config: ViTConfig

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalised pictures `[b, height, width, 3]` → features `[b, width]`, or `[b, out]`.

        What is left of a side that is no multiple of the patch is not seen.
        """
        config, names = self.config, self.config.names
        d, patch = config.width, config.patch
        rows, columns = images.shape[1] // patch, images.shape[2] // patch
        embed = nn.Conv(d, (patch, patch), patch, "VALID", use_bias=names.patch_bias, name=names.patch)
        x = embed(images).reshape(images.shape[0], rows * columns, d)
        lead, size = names.lead, config.grid**2 + 1
        token = self.param(names.token, nn.initializers.normal(), (*lead, *lead, d)).reshape(1, 1, d)
        table = self.param(names.positions, nn.initializers.normal(), (*lead, size, d)).reshape(size, d)
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, d)), x], axis=1)
        x = x + jnp.concatenate([table[:1], interpolate_positions(table[1:], (rows, columns))])
        if names.norm_first is not None:
            x = nn.LayerNorm(epsilon=config.eps, name=names.norm_first, use_fast_variance=False)(x)
        blocks = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=config.depth)
        x, _ = blocks(config, name=names.block)(x, None)
        x = x[:, 0]
        if config.norm_last:
            x = nn.LayerNorm(epsilon=config.eps, name=names.norm_last, use_fast_variance=False)(x)
        if config.out is not None:
            x = x @ self.param(names.projection, nn.initializers.normal(), (d, config.out))
        return x


DINO_B16 = ViTConfig(patch=16, width=768, depth=12, grid=14, names=DINO_NAMES, eps=1e-6)
DINOV2_B14 = ViTConfig(patch=14, width=768, depth=12, grid=37, names=DINO_NAMES, eps=1e-6, layer_scale=True)
CLIP_B32 = ViTConfig(patch=32, width=768, depth=12, grid=7, names=CLIP_NAMES, eps=1e-5, quick_gelu=True, out=512)
CLIP_L14 = ViTConfig(patch=14, width=1024, depth=24, grid=16, names=CLIP_NAMES, eps=1e-5, quick_gelu=True, out=768)
