"""Floating-point operations of the video autoencoder in one pass, counted from shapes as in `flops.py`.

A convolution from a to b channels with a kernel of k × k × k is 2 k³ a b operations at every place of its output.
"""

import math

from mpjax.models.vae import STAGE_FACTORS, VaeArchitecture

Size = tuple[int, int, int]  # of latents or pictures: (t, h, w)


def encode_flops(architecture: VaeArchitecture, latents: Size) -> int:
    """Of `Vae.encode` for the video of latents (t, h, w)."""
    arch, size = architecture, _video(latents)
    total, channels = _conv(3, arch.widths[0], size), arch.widths[0]
    for width, factor in zip(arch.widths, STAGE_FACTORS, strict=True):
        for _ in range(arch.layers):
            total, channels = total + _residual(channels, width, size), width
        if factor is not None:
            size = _shrunk(size, factor)
            total += _conv(width, width, size)
    total += _middle(channels, size) + _conv(channels, 2 * arch.channels, size)
    return total + _conv(2 * arch.channels, 2 * arch.channels, size, kernel=1)


def decode_flops(architecture: VaeArchitecture, latents: Size) -> int:
    """Of `Vae.decode` for latents (t, h, w)."""
    arch, size, channels = architecture, latents, architecture.widths[-1]
    total = _conv(arch.channels, arch.channels, size, kernel=1) + _conv(arch.channels, channels, size)
    total += _middle(channels, size)
    for width, factor in zip(reversed(arch.widths), STAGE_FACTORS, strict=True):
        for _ in range(arch.layers + 1):
            total, channels = total + _residual(channels, width, size), width
        if factor is not None:
            size = _grown(size, factor)
            total += _conv(width, width, size)
    return total + _conv(channels, 3, size)


def _conv(a: int, b: int, size: Size, kernel: int = 3) -> int:
    return 2 * kernel**3 * a * b * math.prod(size)


def _residual(a: int, b: int, size: Size) -> int:
    shortcut = _conv(a, b, size, kernel=1) if a != b else 0
    return _conv(a, b, size) + _conv(b, b, size) + shortcut


def _middle(channels: int, size: Size) -> int:
    """Two residual blocks, and attention of every frame to itself and the frames before it."""
    frames, places = size[0], size[1] * size[2]
    projections = 4 * 2 * frames * places * channels**2
    pairs = places**2 * frames * (frames + 1) // 2
    return 2 * _residual(channels, channels, size) + projections + 4 * pairs * channels


def _video(latents: Size) -> Size:
    for factor in filter(None, STAGE_FACTORS):
        latents = _grown(latents, factor)
    return latents


def _grown(size: Size, factor: Size) -> Size:
    """The first frame stands for itself alone in time."""
    t, h, w = size
    return 1 + factor[0] * (t - 1), factor[1] * h, factor[2] * w


def _shrunk(size: Size, factor: Size) -> Size:
    t, h, w = (-(-length // by) for length, by in zip(size, factor, strict=True))
    return t, h, w
