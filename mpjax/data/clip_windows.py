"""One video to windows of latents, and the cache that keeps them until the dataset is complete."""

import json
import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from mpjax.codecs import Codec
from mpjax.data.video import read_frames
from mpjax.errors import InputError

DONE_FILE = "video.json"
# An exact reconstruction has no finite PSNR, and JSON no infinity.
HIGHEST_PSNR = 100.0


@dataclass(frozen=True, kw_only=True)
class Window:
    """One clip: raw latents float16 `[1 + n f, h, w, c]`, its first frame uint8 `[H, W, 3]`, and the codec's
    reconstruction error on it in dB.
    """

    latents: np.ndarray
    first_frame: np.ndarray
    psnr: float


@dataclass(frozen=True, kw_only=True)
class CachedVideo:
    """The windows of one video, on disk.

    Attributes:
        cache: directory with one file a window.
        latent_frames: latent frames 1 + n f of each window.
        psnr: reconstruction error of each window in dB.
        seconds: how much of the video the windows cover.
        note: where the video turned out damaged, or empty.
    """

    cache: Path
    latent_frames: tuple[int, ...]
    psnr: tuple[float, ...]
    seconds: float
    note: str

    def __len__(self) -> int:
        return len(self.latent_frames)

    def load(self, number: int) -> np.ndarray:
        """Raw latents of a window, float16 `[1 + n f, h, w, c]`."""
        return load_file(_window_file(self.cache, number))["latents"]

    def first_frame(self, number: int) -> np.ndarray:
        """The first frame of a window, uint8 `[H, W, 3]`."""
        return load_file(_window_file(self.cache, number))["first_frame"]


def encode_windows(
    frames: Iterable[np.ndarray], codec: Codec, *, segment_frames: int, max_segments: int
) -> Iterator[Window]:
    """Cut a stream of uint8 `[H, W, 3]` frames into windows and encode them, a segment at a time.

    A window takes 1 + k f n frames, with n <= max_segments whole segments; the next one starts at the frame after it.
    A rest shorter than one segment is dropped. The error is that of the rounded latents, as a reader will decode them.
    """
    frames = iter(frames)
    segment_pixels = codec.time_factor * segment_frames
    while first := list(islice(frames, 1)):
        window, segments = _Encoding(codec, first[0]), 0
        window.push(first)
        while segments < max_segments and len(chunk := list(islice(frames, segment_pixels))) == segment_pixels:
            window.push(chunk)
            segments += 1
        if segments:
            yield window.finish()


class _Encoding:
    """A window in the making. Codecs may be some frames behind, in encoding and in decoding."""

    def __init__(self, codec: Codec, first_frame: np.ndarray):
        self._codec, self._first_frame = codec, first_frame
        height, width, _ = first_frame.shape
        self._encoder, self._decoder = codec.encode_start(1, height, width), codec.decode_start(1, height, width)
        self._latents: list[np.ndarray] = []
        self._pixels = np.empty((1, 0, height, width, 3), np.float32)  # not compared yet
        self._squared_error, self._count = 0.0, 0

    def push(self, frames: list[np.ndarray]) -> None:
        """Takes the next frames, uint8 `[H, W, 3]`."""
        pixels = np.stack(frames)[None].astype(np.float32) / 127.5 - 1
        self._pixels = np.concatenate([self._pixels, pixels], axis=1)
        latents, self._encoder = self._codec.encode_stream(self._encoder, pixels)
        self._take(latents)

    def finish(self) -> Window:
        """The window that ends here."""
        self._take(self._codec.encode_finish(self._encoder))
        self._compare(self._codec.decode_finish(self._decoder))
        psnr = _psnr(self._squared_error / self._count)
        return Window(latents=np.concatenate(self._latents), first_frame=self._first_frame, psnr=psnr)

    def _take(self, latents: np.ndarray) -> None:
        self._latents.append(latents[0].astype(np.float16))
        decoded, self._decoder = self._codec.decode_stream(self._decoder, self._latents[-1][None].astype(np.float32))
        self._compare(decoded)

    def _compare(self, decoded: np.ndarray) -> None:
        truth, self._pixels = np.split(self._pixels, [decoded.shape[1]], axis=1)
        self._squared_error += float(np.sum(np.square(decoded - truth), dtype=np.float64))
        self._count += decoded.size


def encode_video(
    path: Path,
    cache: Path,
    codec: Codec,
    *,
    fps: float,
    height: int,
    width: int,
    segment_frames: int,
    max_segments: int,
    deadline_seconds: float,
) -> CachedVideo:
    """Encode all windows of a video into `cache`, or find them there from an earlier run.

    Raises:
        InputError: the video cannot be used; `cache` is then gone.
    """
    if not (cache / DONE_FILE).exists():
        notes: list[str] = []
        frames = _Counted(
            read_frames(path, fps=fps, height=height, width=width, deadline_seconds=deadline_seconds, note=notes.append)
        )
        latent_frames: list[int] = []
        psnr: list[float] = []
        try:
            for window in encode_windows(frames, codec, segment_frames=segment_frames, max_segments=max_segments):
                cache.mkdir(parents=True, exist_ok=True)
                arrays = {"latents": window.latents, "first_frame": window.first_frame}
                save_file(arrays, _window_file(cache, len(psnr)))
                latent_frames.append(len(window.latents))
                psnr.append(window.psnr)
            if not psnr:
                needed = 1 + codec.time_factor * segment_frames
                damage = f" ({notes[0]})" if notes else ""
                raise InputError(f"{path}: only {frames.count} of the {needed} frames one segment needs{damage}")
        except InputError:
            shutil.rmtree(cache, ignore_errors=True)
            raise
        covered = sum(1 + codec.time_factor * (count - 1) for count in latent_frames)
        done = {
            "latent_frames": latent_frames,
            "psnr": psnr,
            "seconds": round(covered / fps, 3),
            "note": notes[0] if notes else "",
        }
        partial = cache / (DONE_FILE + ".partial")
        partial.write_text(json.dumps(done))
        partial.replace(cache / DONE_FILE)
    done = json.loads((cache / DONE_FILE).read_text())
    return CachedVideo(
        cache=cache,
        latent_frames=tuple(done["latent_frames"]),
        psnr=tuple(done["psnr"]),
        seconds=done["seconds"],
        note=done["note"],
    )


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


def _window_file(cache: Path, number: int) -> Path:
    return cache / f"clip-{number:05d}.safetensors"
