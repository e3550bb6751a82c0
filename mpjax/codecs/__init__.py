"""Pixels to latents and back, behind one small protocol; `create` and `from_spec` are the way in."""

from mpjax.codecs.base import Codec, Tail, denormalise, latent_frames, normalise, pixel_frames
from mpjax.codecs.registry import codec_id, create, from_spec

__all__ = [
    "Codec",
    "Tail",
    "codec_id",
    "create",
    "denormalise",
    "from_spec",
    "latent_frames",
    "normalise",
    "pixel_frames",
]
