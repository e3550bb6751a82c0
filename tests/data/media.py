"""Small videos for the tests, one for every way in which a file can be odd."""

import io
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from mpjax.data.media import Media


def moving(frames: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth colours that drift; uint8 `[frames, height, width, 3]`."""
    t, y, x = np.ogrid[:frames, :height, :width]
    phases = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin((x + 2 * t) / 9 + phases[0]), np.cos((y - t) / 11 + phases[1]), np.sin((x + y) / 15 + phases[2])]
    return (128 + 90 * np.stack(np.broadcast_arrays(*waves), -1)).astype(np.uint8)


def levels(frames: int, height: int = 32, width: int = 32, step: int = 10) -> np.ndarray:
    """Uniform frames; frame i has gray level 10 + step * i, so a decoded frame tells its number."""
    gray = (10 + step * np.arange(frames)).astype(np.uint8)
    return np.broadcast_to(gray[:, None, None, None], (frames, height, width, 3)).copy()


def number(frame: np.ndarray, step: int = 10) -> int:
    """The index of a frame of `levels`."""
    return round((float(frame.mean()) - 10) / step)


def write_video(
    path: Path,
    frames: np.ndarray,
    *,
    fps: int = 12,
    times: list[int] | None = None,
    unit: Fraction | None = None,
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    rotation: int = 0,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode uint8 `[n, H, W, 3]`; `times` in `unit` seconds replaces a constant rate."""
    unit = unit or Fraction(1, fps)
    with av.open(path, "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(codec, rate=fps, options={"crf": "10", "preset": "ultrafast", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        stream.time_base = stream.codec_context.time_base = unit
        if rotation:
            stream.set_display_rotation(rotation)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for i, frame in enumerate(frames):
            if pix_fmt == "gray":  # swscale would write full range without a label
                luma = np.round(16 + 219 / 255 * frame[..., 0]).astype(np.uint8)
                picture = av.VideoFrame.from_ndarray(luma, format="gray")
            else:
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)
            picture.pts, picture.time_base = times[i] if times else i, unit
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def write_audio(path: Path) -> Path:
    """A tenth of a second of silence and no video stream."""
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of two uint8 pictures or videos, in dB."""
    return float(10 * np.log10(255**2 / np.mean(np.square(a.astype(np.float64) - b))))


def counted(frames: int, height: int = 48, width: int = 64, bits: int = 8) -> np.ndarray:
    """Frames with their number burned in: `bits` black or white columns, highest first; uint8 `[n, H, W, 3]`."""
    shown = np.zeros((frames, height, width, 3), np.uint8)
    for bit in range(bits):
        on = (np.arange(frames) >> (bits - 1 - bit)) & 1
        shown[:, :, bit * width // bits : (bit + 1) * width // bits] = 20 + 215 * on[:, None, None, None]
    return shown


def counter(frame: np.ndarray, bits: int = 8) -> int:
    """The number burned into a frame of `counted`, at any size."""
    width = frame.shape[1]
    columns = [frame[:, bit * width // bits : (bit + 1) * width // bits].mean() for bit in range(bits)]
    return sum((level > 128) << (bits - 1 - bit) for bit, level in enumerate(columns))


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> dict[str, Media]:
    """A tar of these files in order, and where each one lies in it."""
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    with tarfile.open(path) as tar:
        return {e.name: Media(path=path, offset=e.offset_data, size=e.size, member=e.name) for e in tar}


def scene(
    seed: int,
    frames: int,
    height: int = 54,
    width: int = 96,
    *,
    pan: tuple[float, float] = (0.0, 0.0),
    walker: float = 0.0,
) -> np.ndarray:
    """One shot: a random landscape, the camera `pan` (down, right) and a disc `walker` pixels a frame; uint8 frames."""
    rng = np.random.default_rng(seed)
    reach = [int(abs(speed) * frames) + 2 for speed in pan]
    size = (height + reach[0], width + reach[1])
    land = np.zeros((*size, 3))
    for grain, strength in ((28, 0.5), (12, 0.3), (5, 0.2)):
        coarse = rng.integers(0, 256, (size[0] // grain + 2, size[1] // grain + 2, 3)).astype(np.uint8)
        land += strength * np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))
    y, x = np.ogrid[:height, :width]
    shots = []
    for n in range(frames):
        top, left = (
            int(speed * n) if speed >= 0 else int(speed * n) + r - 1 for speed, r in zip(pan, reach, strict=True)
        )
        frame = land[top : top + height, left : left + width].round().astype(np.uint8)
        if walker:
            centre = (width / 4 + walker * n) % width
            frame[(y - height / 2) ** 2 + (x - centre) ** 2 < (height / 6) ** 2] = (250, 20, 60)
        shots.append(frame)
    return np.stack(shots)


def join(shots: list[np.ndarray], dissolve: int = 0) -> tuple[np.ndarray, list[float]]:
    """Shots one after another, `dissolve` frames of both over each other; and where, in frames, the changes are."""
    video, places = shots[0].astype(np.float64), []
    alpha = ((np.arange(dissolve) + 0.5) / max(dissolve, 1))[:, None, None, None]
    for shot in shots[1:]:
        places.append(len(video) - dissolve / 2)
        mixed = video[len(video) - dissolve :] * (1 - alpha) + shot[:dissolve] * alpha
        video = np.concatenate([video[: len(video) - dissolve], mixed, shot[dissolve:]])
    return np.round(video).astype(np.uint8), places
