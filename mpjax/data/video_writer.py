"""Writing H.264 in parts: each part is a playable mp4 of its own, and joining parts never encodes again.

Pixel format. yuv420p, the one every player and browser decodes; an odd side is padded by repeating the last row or
column, so a 33x35 video plays as 34x36. Colours are BT.709, limited range, and labelled so.

Reproducibility. One encoder thread, no time stamps of the day, bit-exact muxing: the same frames give the same bytes
with the same build of the libraries.

Parts. A part starts with an IDR frame and refers to nothing outside; there are no B-frames, so decoding order is
presentation order. `stitchable` keeps x264 from fitting its headers to the content: all parts of one size and rate
share them, which is what lets packets be joined without encoding.
"""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

from mpjax.errors import InputError

# A GOP as long as any part: the first frame is the only IDR. No lookahead: with it about one part in 15,000 of 16-pixel
# pictures came out in other bytes, from the same frames in one process; without it none of 70,000 did.
X264_PARAMETERS = "keyint=infinite:scenecut=0:bframes=0:open-gop=0:stitchable=1:rc-lookahead=0:mbtree=0"
MUXER_OPTIONS = {"fflags": "+bitexact", "movflags": "+faststart"}
FIRST_FRAME = "first_frame="
AVCOL_SPC_BT709 = 1


def write_part(path: Path, frames: np.ndarray, *, fps: float, first_frame: int, crf: int = 16) -> None:
    """Encode frames as an mp4 that plays alone, from time 0; the file appears complete or not at all.

    Args:
        path: the mp4 to write; an existing file is replaced.
        frames: uint8 `[n, H, W, 3]`, n >= 1. Odd sides are padded by one.
        fps: frames per second; frame i is shown at exactly i / fps.
        first_frame: index of `frames[0]` in the whole video, kept in the file so that `join_parts` can check the order.
        crf: x264's constant rate factor, 1 (largest file) to 51 (worst picture); 16 looks lossless.

    Raises:
        InputError: the frames are not a uint8 array of that shape.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise InputError(f"{path}: frames must be uint8 [n, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    rate = Fraction(fps).limit_denominator(1001)
    height, width = (side + side % 2 for side in frames.shape[1:3])
    partial = path.with_name(path.name + ".partial")
    with av.open(partial, "w", format="mp4", options=MUXER_OPTIONS) as container:
        container.metadata["comment"] = f"{FIRST_FRAME}{first_frame}"
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "x264-params": X264_PARAMETERS})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = 1
        stream.time_base = 1 / rate
        stream.codec_context.time_base = 1 / rate
        stream.color_range, stream.colorspace = ColorRange.MPEG, AVCOL_SPC_BT709
        stream.color_primaries, stream.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for i, frame in enumerate(frames):
            picture = _to_yuv(frame, height, width)
            picture.pts, picture.time_base = i, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    partial.replace(path)


def join_parts(parts: Iterable[Path], path: Path, fps: float, frames: int | None = None) -> int:
    """Join parts into one mp4 without encoding again; memory does not grow with their number.

    Args:
        parts: files of `write_part`, in order, without gaps.
        path: the mp4 to write; an existing file is replaced, at once when the new one is complete.
        fps: the rate the parts were written with; frame i of the whole is shown at exactly i / fps.
        frames: how many there must be in all; None takes any number.

    Returns:
        the number of frames.

    Raises:
        InputError: no parts, a part that is missing, damaged or not the next one, one of another size or rate, or
            parts with another number of frames in all.
    """
    rate = Fraction(fps).limit_denominator(1001)
    partial = path.with_name(path.name + ".partial")
    count, header, output, target = 0, None, None, None
    try:
        for part in parts:
            try:
                source = av.open(part)
            except (av.error.FFmpegError, OSError) as error:
                raise InputError(f"{part}: cannot be read as a part of a video; write it again") from error
            with source:
                stream = source.streams.video[0]
                if source.metadata.get("comment") != f"{FIRST_FRAME}{count}":
                    raise InputError(f"{part}: does not start at frame {count}, where the part before it ends")
                if output is None:
                    output = av.open(partial, "w", format="mp4", options=MUXER_OPTIONS)
                    target = output.add_stream_from_template(stream)
                    target.time_base = 1 / rate
                    header = _header(stream)
                if _header(stream) != header:
                    raise InputError(f"{part}: has another size or rate than the first part; write all parts alike")
                assert target is not None
                for packet in source.demux(stream):
                    if not packet.size:
                        continue
                    packet.pts = packet.dts = count
                    packet.duration, packet.time_base = 1, 1 / rate
                    packet.stream = target
                    output.mux(packet)
                    count += 1
        if output is None:
            raise InputError(f"{path}: there are no parts to join")
        if frames not in (None, count):
            raise InputError(f"{path}: its parts have {count} frames instead of {frames}; write the missing ones again")
        output.close()
        partial.replace(path)
    except BaseException:
        if output is not None:
            output.close()
        partial.unlink(missing_ok=True)
        raise
    return count


def enlarge(frames: np.ndarray, least: int) -> np.ndarray:
    """Repeat pixels by the smallest whole factor that makes the shorter side at least `least`.

    Args:
        frames: `[..., H, W, 3]` of any dtype.
        least: pixels; tiny worlds are hard to see and suffer from chroma subsampling.
    """
    factor = max(1, -(-least // min(frames.shape[-3:-1])))
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)


def _header(stream: av.video.stream.VideoStream) -> tuple[bytes | None, int, int, Fraction | None]:
    return stream.codec_context.extradata, stream.width, stream.height, stream.average_rate


def _to_yuv(frame: np.ndarray, height: int, width: int) -> av.VideoFrame:
    padding = ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))
    return av.VideoFrame.from_ndarray(np.pad(frame, padding, mode="edge"), format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT,
        threads=1,
    )
