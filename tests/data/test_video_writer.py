import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mpjax.data.video_writer import enlarge, join_parts, write_part
from mpjax.errors import InputError
from tests.data.media import moving, psnr


def read_back(path: Path) -> tuple[np.ndarray, list[Fraction], list[bool]]:
    """All frames, their exact times, and which are key frames."""
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    stamps = [frame.pts * frame.time_base for frame in frames]
    return np.stack([f.to_ndarray(format="rgb24") for f in frames]), stamps, [f.key_frame for f in frames]


def write_parts(folder: Path, video: np.ndarray, counts: list[int], fps: float, **options) -> list[Path]:
    starts = [sum(counts[:i]) for i in range(len(counts))]
    paths = [folder / f"part-{start}.mp4" for start in starts]
    for path, start, count in zip(paths, starts, counts, strict=True):
        write_part(path, video[start : start + count], fps=fps, first_frame=start, **options)
    return paths


@pytest.mark.parametrize("fps", [8, 24, 30000 / 1001, 12.5])
def test_parts_and_the_whole_play(tmp_path, fps):
    video, counts = enlarge(moving(14, 24, 32), 96), [1, 9, 4]
    rate = Fraction(fps).limit_denominator(1001)
    parts = write_parts(tmp_path, video, counts, fps)
    for path, count in zip(parts, counts, strict=True):
        _, stamps, keys = read_back(path)
        assert stamps == [n / rate for n in range(count)]
        assert keys == [True] + [False] * (count - 1)
    assert join_parts(parts, tmp_path / "whole.mp4", fps) == 14
    frames, stamps, keys = read_back(tmp_path / "whole.mp4")
    assert stamps == [n / rate for n in range(14)]
    assert [i for i, key in enumerate(keys) if key] == [0, 1, 10]
    assert psnr(frames, video) > 40
    np.testing.assert_array_equal(frames, np.concatenate([read_back(path)[0] for path in parts]))
    with av.open(tmp_path / "whole.mp4") as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert stream.average_rate == rate and stream.frames == 14
        assert stream.duration * stream.time_base == 14 / rate
        assert all(packet.dts == packet.pts for packet in packets)
    data = (tmp_path / "whole.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert not list(tmp_path.glob("*.partial"))


def test_colours_are_right_and_labelled(tmp_path):
    colour = np.array([200, 30, 60], np.uint8)
    write_part(tmp_path / "a.mp4", np.broadcast_to(colour, (2, 64, 64, 3)).copy(), fps=8, first_frame=0)
    frames, _, _ = read_back(tmp_path / "a.mp4")
    assert np.abs(frames.astype(int) - colour).max() <= 3
    with av.open(tmp_path / "a.mp4") as container:
        context = container.streams.video[0].codec_context
        assert (context.pix_fmt, context.colorspace, context.color_range) == ("yuv420p", 1, 1)
        # ITU-R BT.709, limited range, from its luma weights.
        luma = 16 + 219 / 255 * (colour @ [0.2126, 0.7152, 0.0722])
        plane = next(container.decode(video=0)).to_ndarray()[:64]
        assert abs(plane.mean() - luma) < 1.5


def test_odd_sizes_are_padded_by_repetition(tmp_path):
    video = moving(3, 33, 35)
    write_part(tmp_path / "a.mp4", video, fps=8, first_frame=0, crf=4)
    frames, _, _ = read_back(tmp_path / "a.mp4")
    assert frames.shape == (3, 34, 36, 3)
    assert psnr(frames[:, :33, :35], video) > 35
    assert psnr(frames[:, 33, :35], video[:, 32]) > 28


def test_same_frames_same_bytes(tmp_path):
    video = moving(6)
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        parts = write_parts(tmp_path / run, video, [4, 2], 8)
        join_parts(parts, tmp_path / run / "whole.mp4", 8)
    for name in ("part-0.mp4", "part-4.mp4", "whole.mp4"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_parts_join_whatever_their_content_and_crf(tmp_path):
    video = np.concatenate([np.zeros((3, 48, 64, 3), np.uint8), moving(3)])
    parts = write_parts(tmp_path, video[:3], [3], 8, crf=30)
    write_part(tmp_path / "b.mp4", video[3:], fps=8, first_frame=3, crf=8)
    join_parts([*parts, tmp_path / "b.mp4"], tmp_path / "whole.mp4", 8)
    frames, _, _ = read_back(tmp_path / "whole.mp4")
    assert np.abs(frames[:3].astype(int)).max() <= 2 and psnr(frames[3:], video[3:]) > 34


def test_wrong_parts_are_refused_and_leave_the_old_file(tmp_path):
    parts = write_parts(tmp_path, moving(6), [3, 3], 8)
    whole = tmp_path / "whole.mp4"
    join_parts(parts, whole, 8)
    before = whole.read_bytes()
    write_part(tmp_path / "small.mp4", moving(3, 32, 32), fps=8, first_frame=3)
    (tmp_path / "junk.mp4").write_text("junk")
    for wrong, message in (
        ([], "no parts"),
        (parts[::-1], "does not start at frame 0"),
        ([parts[0], parts[0]], "does not start at frame 3"),
        ([parts[0], tmp_path / "small.mp4"], "another size"),
        ([parts[0], tmp_path / "missing.mp4"], "missing.mp4: cannot be read"),
        ([parts[0], tmp_path / "junk.mp4"], "junk.mp4: cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            join_parts(wrong, whole, 8)
        assert whole.read_bytes() == before
        assert not list(tmp_path.glob("*.partial"))
    for frames in (np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(InputError, match="uint8"):
            write_part(tmp_path / "a.mp4", frames, fps=8, first_frame=0)


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from mpjax.data.video_writer import join_parts, write_part

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

folder = Path(sys.argv[1])
frames = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), dtype=np.uint8)
parts = [folder / f"{i:03d}.mp4" for i in range(200)]
for i, part in enumerate(parts):
    write_part(part, frames, fps=8, first_frame=2 * i)
    if i == 20:
        written = resident()
join_parts(parts[:20], folder / "whole.mp4", 8)
joined = resident()
join_parts(parts, folder / "whole.mp4", 8)
size = (folder / "whole.mp4").stat().st_size / 2**20
print(resident() - joined, resident() - written, size)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads resident memory from /proc")
def test_memory_does_not_grow_with_the_number_of_parts(tmp_path):
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    joining, writing, size = map(float, result.stdout.split())
    assert size > 4  # MiB: what a leak of the packets would cost
    assert joining < 3 and writing < 20  # 180 encoders kept alive would be hundreds


def test_a_missing_part_at_the_end_is_noticed(tmp_path):
    write_part(tmp_path / "a.mp4", moving(4, 64, 64), fps=8, first_frame=0)
    assert join_parts([tmp_path / "a.mp4"], tmp_path / "whole.mp4", 8, 4) == 4
    before = (tmp_path / "whole.mp4").read_bytes()
    with pytest.raises(InputError, match="have 4 frames instead of 5"):
        join_parts([tmp_path / "a.mp4"], tmp_path / "whole.mp4", 8, 5)
    assert (tmp_path / "whole.mp4").read_bytes() == before
    assert not (tmp_path / "whole.mp4.partial").exists()


def test_enlarge():
    frames = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)
    big = enlarge(frames, 7)
    assert big.shape == (2, 9, 15, 3)
    np.testing.assert_array_equal(big[1, 4, 8], frames[1, 1, 2])
    np.testing.assert_array_equal(big[:, ::3, ::3], frames)
    assert enlarge(frames, 3) is not frames and enlarge(frames, 2).shape == frames.shape
