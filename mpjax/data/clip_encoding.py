"""One clip to what its record holds, kept in a cache by content until the dataset is complete."""

import functools
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from mpjax import codecs
from mpjax.codecs import Codec
from mpjax.conditioning.cache import ArrayCache, Arrays, content_key
from mpjax.conditioning.pretrained import PretrainedEncoders
from mpjax.data.raw.clip import Clip
from mpjax.data.video import read_frames
from mpjax.errors import InputError

# Part of every cache key: raise it when the same settings would give other latents.
ENCODER_VERSION = 3
# Scores that hold of every piece of a clip; the others were measured on its frames.
OF_THE_VIDEO = ("enlargement", "shots")
# An exact reconstruction has no finite PSNR, and JSON no infinity.
HIGHEST_PSNR = 100.0
BFLOAT16 = ml_dtypes.bfloat16


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is known of encoded latents without reading them.

    Attributes:
        psnr: reconstruction error in dB of the rounded latents, as a reader will decode them.
        count: latent cells.
        total, squares: float64 `[c]`, sums over the cells of their values and of their squares.
    """

    psnr: float
    count: int
    total: np.ndarray
    squares: np.ndarray


def cut(clip: Clip, *, segment_pixels: int, max_segments: int) -> Iterator[Clip]:
    """Consecutive clips of at most `max_segments` segments, of `segment_pixels` frames each, and one frame before them.

    Each starts at the frame after the one before; a rest shorter than one segment and that frame is dropped. Of the
    scores, a part of a clip keeps those that hold of it, and `seconds` is its own length.
    """
    first = 0
    while clip.frames - first > segment_pixels:
        segments = min((clip.frames - first - 1) // segment_pixels, max_segments)
        frames = 1 + segments * segment_pixels
        start = clip.start + first / clip.fps
        scores = clip.scores
        if frames != clip.frames:
            scores = {name: scores[name] for name in OF_THE_VIDEO if name in scores}
            scores |= {"seconds": frames / clip.fps} if "seconds" in clip.scores else {}
        yield replace(clip, start=start, end=start + frames / clip.fps, frames=frames, segments=segments, scores=scores)
        first += frames


def encode_frames(frames: Iterable[np.ndarray], codec: Codec, *, segment_frames: int) -> Arrays:
    """Encodes uint8 `[H, W, 3]` frames, 1 + k f n of them, a segment at a time.

    Memory holds the latents, and of pixels one segment and what the codec is behind.

    Returns:
        `latents` bfloat16 `[1 + n f, h, w, c]`, raw; `first_frame` uint8 `[H, W, 3]`; float64 `psnr` `[1]`, `total` and
        `squares` `[c]` (`Measures`).
    """
    frames = iter(frames)
    encoding = _Encoding(codec, next(frames))
    while chunk := list(itertools.islice(frames, codec.time_factor * segment_frames)):
        encoding.push(chunk)
    return encoding.finish()


class _Encoding:
    """A clip in the making. Codecs may be some frames behind, in encoding and in decoding."""

    def __init__(self, codec: Codec, first_frame: np.ndarray):
        self._codec, self._first_frame = codec, first_frame
        height, width, _ = first_frame.shape
        self._encoder, self._decoder = codec.encode_start(1, height, width), codec.decode_start(1, height, width)
        self._latents: list[np.ndarray] = []
        self._pixels = np.empty((1, 0, height, width, 3), np.float32)  # not compared yet
        self._squared_error, self._count = 0.0, 0
        self.push([first_frame])

    def push(self, frames: list[np.ndarray]) -> None:
        """Takes the next frames, uint8 `[H, W, 3]`."""
        pixels = np.stack(frames)[None].astype(np.float32) / 127.5 - 1
        self._pixels = np.concatenate([self._pixels, pixels], axis=1)
        latents, self._encoder = self._codec.encode_stream(self._encoder, pixels)
        self._take(latents)

    def finish(self) -> Arrays:
        """The clip that ends here."""
        self._take(self._codec.encode_finish(self._encoder))
        self._compare(self._codec.decode_finish(self._decoder))
        latents = np.concatenate(self._latents)
        cells = latents.reshape(-1, latents.shape[-1]).astype(np.float64)
        return {
            "latents": latents,
            "first_frame": self._first_frame,
            "psnr": np.array([_psnr(self._squared_error / self._count)]),
            "total": cells.sum(0),
            "squares": np.square(cells).sum(0),
        }

    def _take(self, latents: np.ndarray) -> None:
        self._latents.append(latents[0].astype(BFLOAT16))
        decoded, self._decoder = self._codec.decode_stream(self._decoder, self._latents[-1][None].astype(np.float32))
        self._compare(decoded)

    def _compare(self, decoded: np.ndarray) -> None:
        truth, self._pixels = np.split(self._pixels, [decoded.shape[1]], axis=1)
        self._squared_error += float(np.sum(np.square(decoded - truth), dtype=np.float64))
        self._count += decoded.size


@dataclass(frozen=True, kw_only=True)
class ClipEncoder:
    """Encodes clips into a cache, and makes records of what lies there. It travels to Beam's workers.

    Attributes:
        codec: pixels to latents, without normalisation.
        encoders: embed captions and first frames; None: records hold no embeddings.
        segment_frames: latent frames f of a segment.
        deadline_seconds: decoding time allowed per clip.
    """

    codec: Codec
    encoders: PretrainedEncoders | None = None
    segment_frames: int
    deadline_seconds: float = 600.0

    @functools.cached_property
    def codec_id(self) -> str:
        """See `codecs.codec_id`; weights are looked at once."""
        return codecs.codec_id(self.codec)

    @property
    def segment_pixels(self) -> int:
        """Frames of a segment."""
        return self.codec.time_factor * self.segment_frames

    def cells(self, clip: Clip) -> int:
        """Cells h · w of a clip's latents, over all frames."""
        height, width = (pixels // self.codec.space_factor for pixels in clip.bucket)
        return (1 + clip.segments * self.segment_frames) * height * width

    def encode(self, clip: Clip, cache: ArrayCache) -> None:
        """Puts everything into the cache that is not there yet.

        Raises:
            InputError: the video cannot be read, was changed since, or has fewer frames than the clip.
        """
        key = self._key(clip)
        if not cache.holds(key):
            cache.get(key, lambda: self._encode(clip))
        if self.encoders is not None:
            self._prompt(clip.caption, cache)
            self._image(clip, cache)

    def measures(self, clip: Clip, cache: ArrayCache) -> Measures:
        """Of a clip that was encoded."""
        found = cache.read(self._key(clip), "psnr", "total", "squares")
        return Measures(
            psnr=float(found["psnr"][0]), count=self.cells(clip), total=found["total"], squares=found["squares"]
        )

    def record(self, clip: Clip, cache: ArrayCache) -> dict[str, Any]:
        """The record of a clip that was encoded (`records.features`)."""
        height, width = clip.bucket
        record = {
            "id": clip.id,
            "source": clip.name,
            "source_hash": clip.source_hash,
            "caption": clip.caption,
            "fps": clip.fps,
            "height": height,
            "width": width,
            "segments": clip.segments,
            "scores": json.dumps(dict(clip.scores), sort_keys=True),
            "codec": self.codec_id,
            **cache.read(self._key(clip), "latents"),
        }
        if self.encoders is not None:
            record |= self._prompt(clip.caption, cache) | self._image(clip, cache)
        return record

    def empty_prompt(self, cache: ArrayCache) -> Arrays:
        """`text` and `pooled` of the empty prompt."""
        return self._prompt("", cache)

    def _key(self, clip: Clip) -> str:
        where = [clip.source_hash, round(clip.start * 1000), clip.frames, float(clip.fps), list(clip.bucket)]
        return content_key("clip", ENCODER_VERSION, self.codec_id, self.segment_frames, where)

    def _encode(self, clip: Clip) -> Arrays:
        if clip.media.content_hash() != clip.source_hash:
            raise InputError(f"{clip.media}: is no longer the video that the clip was chosen from; scan it again")
        frames = _Counted(clip_frames(clip, self.deadline_seconds))
        if (first := next(frames, None)) is None:
            raise InputError(f"{clip.media}: no frames at {clip.start:.3f} s; the clip begins behind the video's end")
        arrays = encode_frames(itertools.chain([first], frames), self.codec, segment_frames=self.segment_frames)
        if frames.count != clip.frames:
            raise InputError(
                f"{clip.media}: only {frames.count} of the {clip.frames} frames from {clip.start:.3f} s on; "
                "leave the clip out, or end it earlier"
            )
        return arrays

    def _prompt(self, caption: str, cache: ArrayCache) -> Arrays:
        encoders = self.encoders
        assert encoders is not None

        def make() -> Arrays:
            # Not through the encoders' own cache, which would keep it for ever beside this one.
            found = encoders.embed_prompt(caption)
            return {name: found[name].astype(BFLOAT16) for name in ("text", "pooled")}

        return cache.get(content_key("prompt", encoders.identity, caption), make)

    def _image(self, clip: Clip, cache: ArrayCache) -> Arrays:
        encoders, key = self.encoders, self._key(clip)
        assert encoders is not None

        def make() -> Arrays:
            return {"image": encoders.embed_image(cache.read(key, "first_frame")["first_frame"]).astype(BFLOAT16)}

        return cache.get(content_key("image", encoders.identity, key), make)


def clip_frames(clip: Clip, deadline_seconds: float) -> Iterator[np.ndarray]:
    """The frames of a clip, uint8 `[H, W, 3]`."""
    height, width = clip.bucket
    frames = read_frames(
        clip.media,
        fps=clip.fps,
        height=height,
        width=width,
        start=clip.start,
        end=clip.end,
        deadline_seconds=deadline_seconds,
    )
    return itertools.islice(frames, clip.frames)


class _Counted:
    """An iterator that knows how many items it has given."""

    def __init__(self, frames: Iterator[np.ndarray]):
        self._frames, self.count = frames, 0

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> np.ndarray:
        frame = next(self._frames)
        self.count += 1
        return frame


def _psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of pixels in [-1, 1], whose peak is 2."""
    if mean_squared_error <= 4 * 10 ** (-HIGHEST_PSNR / 10):
        return HIGHEST_PSNR
    return 10 * math.log10(4 / mean_squared_error)
