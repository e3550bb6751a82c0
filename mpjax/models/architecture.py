"""The shapes of the network, as frozen dataclasses. `docs/backbone.md` derives each number from FramePack-F1."""

import dataclasses
from typing import Literal, get_args

from mpjax.errors import InputError
from mpjax.models.bank_memory import LongWindow, Retrieval
from mpjax.models.segment_memory import FirstSegment, MeanPool
from mpjax.models.semanticpack import SemanticPack

RopeLayout = Literal["framepack_f1", "framepack_f0", "global"]
REMAT_POLICIES = ("none", "full", "dots", "offload")


def _at_least(fields: object, name: str, least: int) -> None:
    if (value := getattr(fields, name)) < least:
        raise InputError(f"{name} is {value}: it must be at least {least}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FramePack:
    """How recent frames reach the denoiser.

    Attributes:
        segment_frames: latent frames the network generates at once (f). FramePack-F1: 9.
        history_frames: latent frames kept at 1x, 2x and 4x (nearest first). FramePack-F1: (1, 2, 16).
        rope_layout: `framepack_f1` gives every segment the same positions (reference frame 0, history next, then the
            segment); `global` is the paper's RoPE Consistency: the reference frame keeps index 0 of the whole video
            and every other frame its own place in it; `framepack_f0` is that of the first FramePack, which generates a
            video from its end to its beginning (docs/backbone.md).
    """

    segment_frames: int = 9
    history_frames: tuple[int, int, int] = (1, 2, 16)
    rope_layout: str = "framepack_f1"

    def __post_init__(self):
        if self.segment_frames < 1:
            raise InputError(f"segment_frames is {self.segment_frames}: it must be at least 1")
        if self.history_frames[0] < 1 or min(self.history_frames) < 0:
            raise InputError(
                f"history_frames is {self.history_frames}: it needs at least one frame at 1x, none negative"
            )
        if self.rope_layout not in get_args(RopeLayout):
            raise InputError(
                f"rope_layout is {self.rope_layout!r}: it must be one of {', '.join(get_args(RopeLayout))}"
            )

    @property
    def reach(self) -> int:
        """Latent frames of the past that the denoiser sees."""
        return sum(self.history_frames)

    @property
    def backwards(self) -> bool:
        """Whether the last segment of a video is generated first."""
        return self.rope_layout == "framepack_f0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoders:
    """The small trainable prompt and image encoders that stand in where no pretrained ones are given.

    Attributes:
        prompt_bytes: longest prompt in UTF-8 bytes.
        bytes_per_token: neighbouring bytes that form one text token.
        width: width of the text encoder.
        depth: transformer blocks of the text encoder.
        heads: its attention heads.
        image_patch: latents (height, width) of the reference frame that form one image token.
    """

    prompt_bytes: int = 128
    bytes_per_token: int = 4
    width: int = 256
    depth: int = 2
    heads: int = 4
    image_patch: int = 8

    def __post_init__(self):
        for name in ("prompt_bytes", "bytes_per_token", "width", "heads", "image_patch"):
            _at_least(self, name, 1)
        _at_least(self, "depth", 0)
        if self.prompt_bytes % self.bytes_per_token:
            raise InputError(
                f"prompt_bytes is {self.prompt_bytes}: use a multiple of bytes_per_token = {self.bytes_per_token}"
            )
        if self.width % self.heads:
            raise InputError(f"width is {self.width}: it must be a multiple of heads = {self.heads}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """The MM-DiT and what it reads; defaults are FramePack-F1's 13B.

    Source: diffusers 0.42 `HunyuanVideoFramepackTransformer3DModel`.

    Attributes:
        channels: latent channels c.
        heads, head_dim: attention heads; the width d is their product.
        dual_blocks, single_blocks, refiner_blocks: depth of each stack.
        mlp_ratio: hidden width of every MLP over d.
        patch: latents (height and width) that form one token; time patch is 1.
        rope_axes: channels of head_dim turned by (t, y, x); they sum to head_dim.
        rope_theta: base of the rotary frequencies.
        guidance_embeds: embed the distilled guidance scale (1000 · scale) beside the timestep.
        text_width, pooled_width, image_width: widths of the prompt tokens, the pooled prompt and the image tokens.
        framepack, encoders: see there.
        memory: the long-term memory by its `kind`, see there; None is plain FramePack.
        dtype: compute dtype, `float32` or `bfloat16`. Parameters are made in float32; those that are stored in bfloat16
            are used as they are, each cast where it is read.
        remat: what the backward pass recomputes in a block: `none`, `full`, or `dots` (keeps matrix products, and what
            attention needs, apart from cuDNN's, whose forward pass runs again); `offload` is `full`, but the inputs of
            the blocks wait in the memory of the host.
    """

    channels: int = 16
    heads: int = 24
    head_dim: int = 128
    dual_blocks: int = 20
    single_blocks: int = 40
    refiner_blocks: int = 2
    mlp_ratio: float = 4.0
    patch: int = 2
    rope_axes: tuple[int, int, int] = (16, 56, 56)
    rope_theta: float = 256.0
    guidance_embeds: bool = True
    text_width: int = 4096
    pooled_width: int = 768
    image_width: int = 1152
    framepack: FramePack = FramePack()
    memory: SemanticPack | MeanPool | FirstSegment | Retrieval | LongWindow | None = SemanticPack()
    encoders: Encoders | None = Encoders()
    dtype: str = "bfloat16"
    remat: str = "full"

    def __post_init__(self):
        for name in ("channels", "heads", "head_dim", "dual_blocks", "single_blocks", "refiner_blocks", "patch"):
            _at_least(self, name, 1)
        for name in ("text_width", "pooled_width", "image_width"):
            _at_least(self, name, 1)
        for name in ("rope_theta", "mlp_ratio"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be above 0")
        if sum(self.rope_axes) != self.head_dim or any(axis % 2 for axis in self.rope_axes):
            raise InputError(
                f"rope_axes is {self.rope_axes}: three even numbers that sum to head_dim = {self.head_dim}"
            )
        if self.memory:
            self.memory.check(self.width, self.framepack.segment_frames)
        if self.dtype not in ("float32", "bfloat16"):
            raise InputError(f"dtype is {self.dtype!r}: it must be float32 or bfloat16")
        if self.remat not in REMAT_POLICIES:
            raise InputError(f"remat is {self.remat!r}: it must be one of {', '.join(REMAT_POLICIES)}")

    @property
    def width(self) -> int:
        """Token width d."""
        return self.heads * self.head_dim

    @property
    def embedding_widths(self) -> dict[str, int]:
        """Widths of what a video is conditioned on, by the fields of `encoders.Condition`."""
        return {"text": self.text_width, "pooled": self.pooled_width, "image": self.image_width}

    @property
    def mlp_width(self) -> int:
        """Hidden width of every MLP."""
        return int(self.width * self.mlp_ratio)
