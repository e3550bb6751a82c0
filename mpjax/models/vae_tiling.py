"""The autoencoder in tiles: along time always, in space where asked, with the numbers and blends of diffusers.

1. Time. Tile n takes the frames [n s, n s + l) of its input. From the second tile on, its first frame only serves as
   the past: what comes of it is dropped. The first e frames of a tile's output are blended with the last e of the tile
   before it. Of the first tile s' + 1 frames are kept, of the others s', and all that the last one has.
       encoding: l = 17 pixel frames, s = 12, s' = 3 latent frames, e = 1
       decoding: l = 5 latent frames, s = 3, s' = 12 pixel frames, e = 4
   Input shorter than l is one call.
2. Space. Inside a tile of time: tiles of 256 × 256 pixels, 192 apart, each blended with the one above it, then with the
   one to its left, over 64 pixels. Where a picture fits into one tile there is one.
3. Blend of a tile b with its neighbour a over e places: b[j] ← a[len(a) − e + j] (1 − j/e) + b[j] (j/e). The next
   neighbour sees b as it is after that.

The network keeps nothing from tile to tile, so tiles also come one at a time: `TimeTiles` is all that a stream has to
remember. The tiles of a video have a handful of shapes, each compiled once. What is not in work lies on the host.

Source: docs/backbone.md, section 3 (diffusers 0.42 `AutoencoderKLHunyuanVideo._temporal_tiled_decode`, `.tiled_decode`
and their counterparts).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mpjax.errors import InputError
from mpjax.models.vae import SPACE_FACTOR, TIME_FACTOR

# Of each piece of input [b, t, h, w, c], its output [b, t', h', w', c']. The pieces do not depend on each other.
Network = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
TIME, ROWS, COLUMNS = 1, 2, 3  # axes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiling:
    """Sizes in pixels and pixel frames; the defaults are diffusers'.

    Attributes:
        frames, frame_stride: of a tile along time, which has one more frame at its beginning.
        spatial: whether pictures larger than a tile are cut in space.
        side, side_stride: of a tile in space.
    """

    frames: int = 16
    frame_stride: int = 12
    spatial: bool = False
    side: int = 256
    side_stride: int = 192

    def __post_init__(self):
        for name, size, stride, unit in (
            ("frames", self.frames, self.frame_stride, TIME_FACTOR),
            ("side", self.side, self.side_stride, SPACE_FACTOR),
        ):
            if not 0 < stride <= size or size % unit or stride % unit:
                raise InputError(
                    f"{name} is {size} and its stride {stride}: give multiples of {unit}, the stride not above the size"
                )


class TimeTiles(NamedTuple):
    """Where a stream of tiles along time stands.

    Attributes:
        waiting: input frames from the start of the next tile on, `[b, n, h, w, c]`.
        edge: the last e frames of the newest tile's output; None before the first tile.
    """

    waiting: np.ndarray
    edge: np.ndarray | None = None


class _Steps(NamedTuple):
    """Along one axis: length and stride of the input's tiles, stride and blend of the output's."""

    length: int
    stride: int
    out_stride: int
    blend: int


class TileStream:
    """Tiles along time, made as their frames arrive: `encoding_tiles` and `decoding_tiles` give one."""

    def __init__(self, network: Network, steps: _Steps):
        """`network` sees whole tiles, and the shorter one at the end of a video."""
        self._network, self._steps = network, steps

    def whole(self, x: np.ndarray) -> np.ndarray:
        """Output of all the input `[b, t, h, w, c]`, t ≥ 1; the bits of any sequence of `push` and then `finish`."""
        done, tiles = self.push(TimeTiles(x[:, :0]), x)
        return np.concatenate([*done, *self.finish(tiles)], axis=TIME)

    def push(self, tiles: TimeTiles, x: np.ndarray) -> tuple[list[np.ndarray], TimeTiles]:
        """Takes the next frames `[b, n, h, w, c]`; returns the pieces of output that are now complete."""
        waiting, edge = np.concatenate([tiles.waiting, x], axis=TIME), tiles.edge
        done = []
        while waiting.shape[TIME] >= self._steps.length:
            frames, edge = self._tile(waiting[:, : self._steps.length], edge)
            done.append(frames)
            waiting = waiting[:, self._steps.stride :]
        return done, TimeTiles(waiting, edge)

    def finish(self, tiles: TimeTiles) -> list[np.ndarray]:
        """The pieces of output that are left when no more input comes."""
        waiting, edge = tiles
        if edge is None:
            return self._network([waiting]) if waiting.shape[TIME] else []
        done = []
        while waiting.shape[TIME] > 1:  # a lone frame is only a past
            frames, edge = self._tile(waiting, edge)
            done.append(frames)
            waiting = waiting[:, self._steps.stride :]
        return done

    def _tile(self, x: np.ndarray, edge: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The frames that are kept of a tile, and the edge for the next one."""
        (frames,), kept = self._network([x]), self._steps.out_stride + 1
        if edge is not None:
            frames, kept = _blend(edge, frames[:, 1:], self._steps.blend, TIME), kept - 1
        return frames[:, :kept], frames[:, max(frames.shape[TIME] - self._steps.blend, 0) :].copy()


def encoding_tiles(encode: Network, tiling: Tiling) -> TileStream:
    """Pixels to moments; `encode` is the bare network, `vae.Vae.encode`."""
    return _stream(encode, tiling, (1, TIME_FACTOR), (1, SPACE_FACTOR))


def decoding_tiles(decode: Network, tiling: Tiling) -> TileStream:
    """Latents to pixels; `decode` is the bare network, `vae.Vae.decode`."""
    return _stream(decode, tiling, (TIME_FACTOR, 1), (SPACE_FACTOR, 1))


def largest_latent_tile(tiling: Tiling, height: int, width: int) -> tuple[int, int, int]:
    """(t, h, w) of the largest piece of latents `[b, t, height, width, c]` that is decoded at once."""
    side = tiling.side // SPACE_FACTOR if tiling.spatial else max(height, width)
    return tiling.frames // TIME_FACTOR + 1, min(height, side), min(width, side)


def _stream(network: Network, tiling: Tiling, time: tuple[int, int], space: tuple[int, int]) -> TileStream:
    if tiling.spatial:
        network = _spatial(network, _steps(tiling.side, tiling.side_stride, *space))
    steps = _steps(tiling.frames, tiling.frame_stride, *time)
    return TileStream(network, steps._replace(length=steps.length + 1))


def _steps(size: int, stride: int, unit: int, out_unit: int) -> _Steps:
    """`unit` and `out_unit`: pixels of one place of the input and of the output."""
    return _Steps(size // unit, stride // unit, stride // out_unit, (size - stride) // out_unit)


def _spatial(network: Network, steps: _Steps) -> Network:
    length, stride, out_stride, blend = steps

    def tiled(x: np.ndarray) -> np.ndarray:
        height, width = x.shape[ROWS], x.shape[COLUMNS]
        if max(height, width) <= length:
            return network([x])[0]
        tops, lefts = range(0, height, stride), range(0, width, stride)
        tiles = network([x[:, :, i : i + length, j : j + length] for i in tops for j in lefts])
        above: list[np.ndarray] = []
        rows = []
        for first in range(0, len(tiles), len(lefts)):
            row: list[np.ndarray] = []
            for column, tile in enumerate(tiles[first : first + len(lefts)]):
                if above:
                    tile = _blend(above[column], tile, blend, ROWS)
                if row:
                    tile = _blend(row[-1], tile, blend, COLUMNS)
                row.append(tile)
            rows.append(np.concatenate([tile[:, :, :out_stride, :out_stride] for tile in row], axis=COLUMNS))
            above = row
        return np.concatenate(rows, axis=ROWS)

    return lambda pieces: [tiled(x) for x in pieces]


def _blend(before: np.ndarray, after: np.ndarray, extent: int, axis: int) -> np.ndarray:
    """`after` with its first `extent` places along an axis faded in over the last ones of `before`."""
    extent = min(extent, before.shape[axis], after.shape[axis])
    if extent == 0:
        return after
    weight = (np.arange(extent) / extent).reshape([extent if n == axis else 1 for n in range(after.ndim)])
    _, old = np.split(before, [before.shape[axis] - extent], axis)
    new, rest = np.split(after, [extent], axis)
    faded = old * (1 - weight).astype(np.float32) + new * weight.astype(np.float32)
    return np.concatenate([faded, rest], axis)
