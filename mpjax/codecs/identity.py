"""Latents are pixels. For RecallWorld, whose pictures are already as small as latents."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from mpjax.codecs.base import Tail, check_latents, check_normalisation, check_video, denormalise, normalise


@dataclass(frozen=True, kw_only=True)
class IdentityCodec:
    """k = 1, space factor 1, three channels; implements `codecs.Codec`."""

    name: ClassVar[str] = "identity"
    time_factor: ClassVar[int] = 1
    space_factor: ClassVar[int] = 1
    channels: ClassVar[int] = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self):
        check_normalisation(self)

    def encode(self, video: np.ndarray) -> np.ndarray:
        """See `Codec.encode`."""
        check_video(self, video)
        return normalise(self, video)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """See `Codec.decode`."""
        check_latents(self, latents)
        return np.clip(denormalise(self, latents), -1, 1)

    def encode_start(self, batch: int, height: int, width: int) -> Tail:
        """`size` = (b, H, W) alone, int64 `[3]`: no frame depends on another one."""
        return {"size": np.array([batch, height, width], np.int64)}

    def encode_stream(self, tail: Tail, frames: np.ndarray) -> tuple[np.ndarray, Tail]:
        """See `Codec.encode_stream`."""
        return self.encode(frames), tail

    def encode_finish(self, tail: Tail) -> np.ndarray:
        """None: every frame is complete at once."""
        return _no_frames(tail)

    def decode_start(self, batch: int, height: int, width: int) -> Tail:
        """As `encode_start`."""
        return self.encode_start(batch, height, width)

    def decode_stream(self, tail: Tail, latents: np.ndarray) -> tuple[np.ndarray, Tail]:
        """See `Codec.decode_stream`."""
        return self.decode(latents), tail

    def decode_finish(self, tail: Tail) -> np.ndarray:
        """None: every frame is final at once."""
        return _no_frames(tail)

    def spec(self) -> dict[str, Any]:
        """See `Codec.spec`."""
        return {"name": self.name, "mean": list(self.mean), "std": list(self.std)}

    def with_normalisation(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """See `Codec.with_normalisation`."""
        return dataclasses.replace(self, mean=tuple(mean), std=tuple(std))


def _no_frames(tail: Tail) -> np.ndarray:
    batch, height, width = tail["size"]
    return np.empty((batch, 0, height, width, 3), np.float32)
