"""MemoryPack: the whole denoiser. FramePack's history and the long-term memory's ψ in, velocity out.

Pure functions of (parameters, arrays): `velocity`, `init_memory`, `update_memory` and `condition` are methods of one
Flax module; `Denoiser` binds them to plain functions, which is all that training and generation know.

Sign and time: outside this file and `models.mmdit`, t = 1 is the data and velocity = dx/dt (the paper). The network,
as FramePack-F1, takes 1000·(1 − t) and returns `prediction` = noise − data = −velocity. The change is made here, once.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mpjax.models.architecture import Architecture
from mpjax.models.encoders import Condition, FrameEncoder, PromptEncoder
from mpjax.models.framepack import CleanEmbedder, History, empty_history, packed_table
from mpjax.models.layers import Dense, patchify, unpatchify
from mpjax.models.memory import Memory, empty_memory
from mpjax.models.mmdit import MMDiT, OutputHead, TimeTextEmbedding
from mpjax.models.refiner import TokenRefiner
from mpjax.models.rope import Table
from mpjax.parallel.rules import TOKENS, constrain

TIME_SCALE = 1000.0

Prompts = jax.Array | Condition  # bytes int32 `[b, l]` for the built-in encoders, or embeddings made before


class BlockInputs(flax.struct.PyTreeNode):
    """What the blocks read.

    Attributes:
        latents: tokens `[b, n, d]` in the order [4x, 2x, clean 1x, noisy].
        context: tokens `[b, m, d]` in the order [image, prompt, what is read from ψ].
        context_mask: bool `[b, m]`.
        temb: conditioning vector `[b, d]`.
        table: RoPE table of the latents.
    """

    latents: jax.Array
    context: jax.Array
    context_mask: jax.Array
    temb: jax.Array
    table: Table


class ImageProjection(nn.Module):
    """down(SiLU(up(x))): image tokens → context width (diffusers `FramepackClipVisionProjection`)."""

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """`[b, n, image_width]` → `[b, n, d]`."""
        h = nn.silu(Dense(3 * self.width, ("embed", "mlp"), dtype=self.dtype, name="up")(image))
        return Dense(self.width, ("mlp", "embed"), dtype=self.dtype, name="down")(h)


class MemoryPack(nn.Module):
    """The network. Use it through `Denoiser`."""

    architecture: Architecture

    def setup(self):
        """Creates the submodules; `memory=None` and `encoders=None` leave theirs out."""
        arch = self.architecture
        dtype = jnp.dtype(arch.dtype)
        self.x_embedder = Dense(arch.width, (None, "embed"), dtype=dtype)
        self.clean_x_embedder = CleanEmbedder(arch)
        self.context_embedder = TokenRefiner(arch.width, arch.heads, arch.mlp_width, arch.refiner_blocks, dtype)
        self.image_projection = ImageProjection(arch.width, dtype)
        self.time_text_embed = TimeTextEmbedding(arch.width, arch.guidance_embeds, dtype)
        self.blocks = MMDiT(arch)
        self.head = OutputHead(arch.channels * arch.patch**2)
        if arch.memory:
            self.long_term = arch.memory.module(arch.width, arch.mlp_width, dtype)
            nn.share_scope(self, self.long_term)  # its parameters lie beside the others: memorize, squeeze, recall
        if arch.encoders:
            self.prompt_encoder = PromptEncoder(arch, arch.encoders)
            self.frame_encoder = FrameEncoder(arch, arch.encoders)

    def condition(self, prompts: Prompts, reference: jax.Array) -> Condition:
        """prompts int32 `[b, l]`, reference latents `[b, 1, h, w, c]` → embeddings; a `Condition` is returned as it is.

        Raises:
            ValueError: bytes for a network without the built-in encoders.
        """
        if isinstance(prompts, Condition):
            return prompts
        if not self.architecture.encoders:
            raise ValueError("this network has no prompt encoder: pass a Condition of embeddings")
        text, mask, pooled = self.prompt_encoder(prompts)
        return Condition(text=text, text_mask=mask, pooled=pooled, image=self.frame_encoder(reference))

    def prediction(
        self,
        x_t: jax.Array,
        timestep: jax.Array,
        history: History,
        condition: Condition,
        memory: Memory,
        guidance: jax.Array | None = None,
    ) -> jax.Array:
        """FramePack-F1's raw output (noise − data) for noisy latents `[b, f, h, w, c]` at timestep `[b]` = 1000·σ."""
        inputs = self.embed(x_t, timestep, history, condition, memory, guidance)
        _, f, h, w, _ = x_t.shape
        return self.project(self.run_blocks(inputs), inputs, (f, h, w))

    def run_blocks(self, inputs: BlockInputs) -> jax.Array:
        """Latent tokens behind the last block, `[b, n, d]`."""
        return self.blocks(inputs.latents, inputs.context, inputs.context_mask, inputs.temb, inputs.table)

    def project(self, tokens: jax.Array, inputs: BlockInputs, size: tuple[int, int, int]) -> jax.Array:
        """The output head on the noisy ones of the tokens `[b, n, d]`: `[b, f, h, w, c]` for a size (f, h, w)."""
        patch = self.architecture.patch
        noisy = size[0] * (size[1] // patch) * (size[2] // patch)
        return unpatchify(self.head(tokens[:, -noisy:], inputs.temb), *size, patch)

    def embed(
        self,
        x_t: jax.Array,
        timestep: jax.Array,
        history: History,
        condition: Condition,
        memory: Memory,
        guidance: jax.Array | None = None,
    ) -> BlockInputs:
        """Everything in front of the blocks; arguments as of `prediction`."""
        arch = self.architecture
        h, w = x_t.shape[2:4]
        if h % arch.patch or w % arch.patch:
            raise ValueError(f"latents of {h}×{w} do not divide into patches of {arch.patch}")
        noisy = self.x_embedder(patchify(x_t, (1, arch.patch, arch.patch)))
        latents = jnp.concatenate([self.clean_x_embedder(history), noisy], 1)
        temb = self.time_text_embed(timestep, guidance, condition.pooled)
        image = self.image_projection(condition.image)
        text = self.context_embedder(condition.text, condition.text_mask, timestep)
        context, mask = [image, text], [jnp.ones(image.shape[:2], bool), condition.text_mask]
        if memory.tokens.shape[1]:  # else this is FramePack-F1 to the last operation
            tokens, valid = self.read_memory(memory, condition)
            context, mask = [*context, tokens.astype(text.dtype)], [*mask, valid]
        return BlockInputs(
            latents=latents,
            context=jnp.concatenate(context, 1),
            context_mask=jnp.concatenate(mask, 1),
            temb=temb,
            table=packed_table(history, arch),
        )

    def velocity(
        self,
        x_t: jax.Array,
        t: jax.Array,
        history: History,
        condition: Condition,
        memory: Memory,
        guidance: jax.Array | None = None,
    ) -> jax.Array:
        """dx/dt at x_t `[b, f, h, w, c]`, t `[b]` in [0, 1], t = 1 at the data (paper, Eqs. 3 to 5); float32."""
        return -self.prediction(x_t, TIME_SCALE * (1.0 - t), history, condition, memory, guidance)

    def init_memory(self, condition: Condition, latent_size: tuple[int, int]) -> Memory:
        """ψ_0, of no tokens without a long-term memory."""
        arch, b = self.architecture, condition.image.shape[0]
        if not arch.memory:
            return empty_memory(b, 0, arch.width)

        def context(t: float) -> tuple[jax.Array, jax.Array, jax.Array]:
            timestep = jnp.full((b,), TIME_SCALE * (1.0 - t))
            text = self.context_embedder(condition.text, condition.text_mask, timestep)
            return self.image_projection(condition.image), text, condition.text_mask

        return _split(self.long_term.start(b, context, (arch.framepack.segment_frames, *latent_size)))

    def update_memory(self, memory: Memory, segment: jax.Array) -> Memory:
        """ψ_{n+1} from ψ_n and the segment x^n `[b, f, h, w, c]`; without a long-term memory, ψ as it was."""
        return _split(self.long_term.update(memory, segment)) if self.architecture.memory else memory

    def read_memory(self, memory: Memory, condition: Condition) -> tuple[jax.Array, jax.Array]:
        """Tokens `[b, k, d]` of ψ_n that the next segment's context receives, and their mask bool `[b, k]`."""
        if not self.architecture.memory:
            return memory.tokens, memory.valid
        return self.long_term.read(memory, condition.pooled, condition.image)

    def __call__(self, prompts: Prompts, reference: jax.Array, segment: jax.Array) -> jax.Array:
        """Runs every part once, so that initialisation creates every parameter."""
        condition = self.condition(prompts, reference)
        memory = self.init_memory(condition, (reference.shape[2], reference.shape[3]))
        memory = self.update_memory(memory, segment)
        history = empty_history(reference, self.architecture.framepack)
        guidance = jnp.ones(segment.shape[0]) if self.architecture.guidance_embeds else None
        return self.velocity(segment, jnp.zeros(segment.shape[0]), history, condition, memory, guidance)


def _split(memory: Memory) -> Memory:
    """ψ over the devices of a mesh, as any other tokens."""
    return memory.replace(tokens=constrain(memory.tokens, TOKENS), valid=constrain(memory.valid, TOKENS[:2]))


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """The network as plain functions of (parameters, arrays). Everything above `models` talks to this.

    Attributes:
        architecture: shapes.
        guidance: distilled guidance scale fed to a network with `guidance_embeds`.
    """

    architecture: Architecture
    guidance: float = 1.0

    @property
    def module(self) -> MemoryPack:
        """The Flax module."""
        return MemoryPack(self.architecture)

    def apply(self, params: dict, *args: Any, method: str) -> Any:
        """A method of `MemoryPack`."""
        return self.module.apply({"params": params}, *args, method=method)

    def init(self, key: jax.Array, prompts: Prompts, reference: jax.Array, segment: jax.Array) -> dict:
        """Parameters, boxed with logical axis names (`flax.linen.unbox` strips them)."""
        return self.module.init(key, prompts, reference, segment)["params"]

    def condition(self, params: dict, prompts: Prompts, reference: jax.Array) -> Condition:
        """Prompt bytes int32 `[b, l]` and reference latents `[b, 1, h, w, c]` → embeddings, unless they are given."""
        return self.apply(params, prompts, reference, method="condition")

    def velocity(
        self, params: dict, x_t: jax.Array, t: jax.Array, history: History, condition: Condition, memory: Memory
    ) -> jax.Array:
        """dx/dt at x_t `[b, f, h, w, c]`, t `[b]`; t = 1 is the data."""
        guidance = self.guidance_input(x_t.shape[0])
        return self.apply(params, x_t, t, history, condition, memory, guidance, method="velocity")

    def embed(
        self, params: dict, x_t: jax.Array, t: jax.Array, history: History, condition: Condition, memory: Memory
    ) -> BlockInputs:
        """The first part of `velocity`: everything in front of the blocks."""
        arguments = (x_t, TIME_SCALE * (1.0 - t), history, condition, memory, self.guidance_input(x_t.shape[0]))
        return self.apply(params, *arguments, method="embed")

    def project(self, params: dict, tokens: jax.Array, inputs: BlockInputs, x_t: jax.Array) -> jax.Array:
        """The last part of `velocity`: from the tokens behind the blocks, for noisy latents of the shape of x_t."""
        return -self.apply(params, tokens, inputs, x_t.shape[1:4], method="project")

    def guidance_input(self, batch: int) -> jax.Array | None:
        """What a network with `guidance_embeds` is told, float32 `[b]` (1000 · scale); None for others."""
        return jnp.full((batch,), TIME_SCALE * self.guidance) if self.architecture.guidance_embeds else None

    def start(
        self, params: dict, prompts: Prompts, reference: jax.Array, total: int | jax.Array = 0
    ) -> tuple[History, Memory]:
        """History and ψ_0 of a video of `total` segments: first prompt int32 `[b, l]`, reference `[b, 1, h, w, c]`."""
        history = empty_history(reference, self.architecture.framepack, total)
        return history, self.init_memory(params, prompts, reference)

    def init_memory(self, params: dict, prompts: Prompts, reference: jax.Array) -> Memory:
        """ψ_0."""
        condition = self.condition(params, prompts, reference)
        size = (reference.shape[2], reference.shape[3])
        return self.apply(params, condition, size, method="init_memory")

    def update_memory(self, params: dict, memory: Memory, segment: jax.Array) -> Memory:
        """ψ_{n+1} from ψ_n and a segment `[b, f, h, w, c]`."""
        return self.apply(params, memory, segment, method="update_memory")
