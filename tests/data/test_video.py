from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mpjax.data import decoding
from mpjax.data.media import Media
from mpjax.data.video import probe, read_frames, read_image, resample
from mpjax.errors import InputError
from tests.data.media import counted, counter, levels, moving, number, psnr, write_audio, write_tar, write_video


def read(path, *, fps=12, height=32, width=32, **options):
    return list(read_frames(path, fps=fps, height=height, width=width, **options))


def by_definition(stamps, end, fps):
    """For every i the last item whose stamp is at most (i + 1/4) / fps, while that is before the end."""
    count = max(1, sum((i + Fraction(1, 4)) / fps < end for i in range(10_000)))
    return [max(n for n, t in enumerate(stamps) if n == 0 or t <= (i + Fraction(1, 4)) / fps) for i in range(count)]


@pytest.mark.parametrize("fps", [Fraction(1), Fraction(8), Fraction(24), Fraction(30000, 1001), Fraction(60)])
def test_resampling_by_brute_force(fps):
    rng = np.random.default_rng(int(fps))
    for _ in range(10):
        gaps = [Fraction(int(gap), 1000) for gap in rng.integers(1, 400, 20)]
        stamps = [Fraction(5) + sum(gaps[:n]) for n in range(20)]
        timed = [(stamp, gap, n) for n, (stamp, gap) in enumerate(zip(stamps, gaps, strict=True))]
        assert list(resample(timed, fps)) == by_definition([s - 5 for s in stamps], sum(gaps), fps)


def test_resampling_odd_clocks():
    unknown = Fraction(0)
    # A stamp that does not advance is skipped; an unknown last duration is the last interval.
    timed = [(Fraction(n, 4), unknown, name) for n, name in ((0, "a"), (1, "b"), (1, "c"), (0, "d"), (2, "e"))]
    assert list(resample(timed, Fraction(4))) == ["a", "b", "e"]
    # A jump of hours ends the stream instead of filling it with repeats.
    timed = [(Fraction(0), Fraction(1, 4), "a"), (Fraction(1, 4), Fraction(1, 4), "b"), (Fraction(9999), unknown, "c")]
    assert list(resample(timed, Fraction(4))) == ["a", "b"]
    assert list(resample([(Fraction(7), unknown, "a")], Fraction(24))) == ["a"]
    assert list(resample([], Fraction(24))) == []


def test_constant_rate_is_kept_halved_and_doubled(tmp_path):
    path = write_video(tmp_path / "a.mp4", levels(24))
    assert [number(f) for f in read(path)] == list(range(24))
    assert [number(f) for f in read(path, fps=6)] == list(range(0, 24, 2))
    assert [number(f) for f in read(path, fps=24)] == [i // 2 for i in range(48)]
    assert [number(f) for f in read(path, end=0.5)] == list(range(6))


def test_millisecond_stamps_neither_repeat_nor_drop(tmp_path):
    times = [round(i * 1000 / 24) for i in range(24)]
    path = write_video(tmp_path / "a.mkv", levels(24), fps=24, times=times, unit=Fraction(1, 1000))
    assert [number(f) for f in read(path, fps=24)] == list(range(24))


def test_variable_frame_rate_goes_by_time(tmp_path):
    # 12 fps for 4 frames, 1 s of nothing, then 2 fps: in twelfths of a second.
    times = [0, 1, 2, 3, 15, 21, 27]
    path = write_video(tmp_path / "a.mp4", levels(7), times=times)
    shown = [number(f) for f in read(path)]
    assert shown[:28] == [max(n for n, t in enumerate(times) if t <= i) for i in range(28)]
    assert len(shown) < 40


# 24 fps, then 1 fps, 60 fps, a gap of 3 s and 10 fps, in sixtieths of a second; 160 frames, 15.6 s.
GAPS = [5, 2, 3] * 12 + [60] * 3 + [1] * 60 + [180] + [6] * 59
STAMPS = [sum(GAPS[:n]) for n in range(160)]
CONTAINERS = [
    ("a.mp4", "libx264", {"bf": "3", "g": "25", "preset": "medium"}),
    ("a.mkv", "libx264", {"bf": "2", "g": "40", "preset": "veryfast", "x264-params": "open-gop=1"}),
    ("a.webm", "libvpx-vp9", {"g": "30", "deadline": "realtime", "cpu-used": "8", "b": "1M"}),
    ("a.ts", "libx264", {"bf": "2", "g": "25", "preset": "veryfast"}),
]


@pytest.fixture(scope="module", params=CONTAINERS, ids=lambda c: c[0] + "-" + c[1])
def variable(request, tmp_path_factory):
    """A video at a variable rate with its frames' numbers burned in."""
    name, codec, options = request.param
    path = tmp_path_factory.mktemp("variable") / name
    return write_video(path, counted(160), fps=60, times=STAMPS, codec=codec, options=options)


@pytest.mark.parametrize("fps", [24, 30000 / 1001, 10])
@pytest.mark.parametrize(("start", "end"), [(0.0, None), (0.33, 1.0), (3.7, 9.05), (9.99, None)])
def test_burned_in_counter_at_a_variable_rate(variable, fps, start, end):
    shown = [counter(frame) for frame in read(variable, fps=fps, height=48, width=64, start=start, end=end)]
    last = (STAMPS[-1] + 6) / 60
    # The length of the last frame is not in every container.
    assert abs(len(shown) - (min(end or last, last) - start) * fps) <= max(1, 0.1 * fps)
    wrong_by = []
    for i, n in enumerate(shown):
        wanted = start + i / fps
        begins, ends = STAMPS[n] / 60, STAMPS[n + 1] / 60 if n < 159 else last
        wrong_by.append(max(begins - wanted, wanted - ends, 0) * fps)
    assert max(wrong_by) <= 0.5
    assert len(set(shown)) > 4


def test_ranges_are_parts_of_the_whole(variable):
    whole = read(variable, fps=12)
    for first, count in ((0, 5), (30, 36), (80, 37)):
        part = read(variable, fps=12, start=first / 12, end=(first + count) / 12)
        assert [counter(f) for f in part] == [counter(f) for f in whole[first : first + count]]
        assert len(part) == count
    assert read(variable, fps=12, start=20.0, end=21.0) == []


def test_a_range_decodes_little_of_a_long_video(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", counted(250, 32, 64), fps=5, options={"g": "25"})
    decoded = []
    original = decoding.Reading._decode

    def counting(self, *rest):
        for timed in original(self, *rest):
            decoded.append(timed.time)
            yield timed

    monkeypatch.setattr(decoding.Reading, "_decode", counting)
    shown = [counter(f) for f in read(path, fps=5, width=64, start=40.0, end=42.0)]
    assert shown == list(range(200, 210)) and len(decoded) < 40


def test_a_clock_that_starts_late(tmp_path):
    times = [70 + n for n in range(100)]
    path = write_video(tmp_path / "a.mkv", counted(100), fps=10, times=times, options={"g": "10"})
    assert [counter(f) for f in read(path, fps=10, height=24, start=5.0, end=6.0)] == list(range(50, 60))


def test_a_range_where_the_index_lies_is_read_from_the_beginning(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", counted(100), fps=10, options={"g": "10"})
    # Every jump lands at the end.
    jump = decoding.Reading._jump
    monkeypatch.setattr(decoding.Reading, "_jump", lambda self, to: jump(self, to if to == 0 else Fraction(9)))
    assert [counter(f) for f in read(path, fps=10, height=24, start=5.0, end=5.5)] == list(range(50, 55))


def test_a_video_inside_a_tar(tmp_path):
    path = write_video(tmp_path / "a.mp4", counted(100), fps=10, options={"g": "10"})
    media = write_tar(tmp_path / "a.tar", {"other.txt": b"x" * 1000, "a.mp4": path.read_bytes(), "b.txt": b"y"})[
        "a.mp4"
    ]
    assert media.content_hash() == Media(path=path).content_hash()
    assert [counter(f) for f in read(media, fps=10, height=24, start=5.0, end=7.0)] == list(range(50, 70))
    assert probe(media) == probe(path) == (48, 64, 10.0, 10.0)


@pytest.mark.parametrize("bounds", [(-1.0, None), (2.0, 2.0), (3.0, 1.0)])
def test_empty_ranges_are_refused(tmp_path, bounds):
    path = write_video(tmp_path / "a.mp4", levels(3))
    with pytest.raises(InputError, match="give 0 ≤ start < end"):
        read(path, start=bounds[0], end=bounds[1])


@pytest.mark.parametrize(
    ("pix_fmt", "size", "least"),
    [("yuv420p", (48, 64), 38), ("yuv444p", (33, 35), 40), ("yuv420p10le", (48, 64), 38), ("yuvj420p", (48, 64), 37)],
)
def test_pixel_formats(tmp_path, pix_fmt, size, least):
    frames = moving(3, *size)
    path = write_video(tmp_path / "a.mp4", frames, pix_fmt=pix_fmt)
    got = read(path, height=size[0], width=size[1])
    assert len(got) == 3 and got[0].dtype == np.uint8 and got[0].shape == (*size, 3)
    assert psnr(np.stack(got), frames) > least


def test_gray_becomes_three_equal_channels(tmp_path):
    frames = np.repeat(moving(3)[..., :1], 3, axis=-1)
    got = np.stack(read(write_video(tmp_path / "a.mp4", frames, pix_fmt="gray"), height=48, width=64))
    assert psnr(got, frames) > 40
    assert np.ptp(got.astype(int), axis=-1).max() <= 1


def set_matrix(path: Path, matrix: list[int]) -> None:
    """Write a, b, c, d of the display matrix into the track header: x' = a x + c y, y' = b x + d y (ISO 14496-12)."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    for slot, value in zip((0, 1, 3, 4), matrix, strict=True):
        data[start + 4 * slot : start + 4 * slot + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ([0, 1, -1, 0], lambda f: f[::-1].transpose(1, 0, 2)),  # right goes down: clockwise
        ([0, -1, 1, 0], lambda f: f.transpose(1, 0, 2)[::-1]),
        ([-1, 0, 0, -1], lambda f: f[::-1, ::-1]),
    ],
)
def test_display_matrix(tmp_path, matrix, turn):
    frames = moving(2)
    path = write_video(tmp_path / "a.mp4", frames)
    set_matrix(path, matrix)
    expected = turn(frames[0])
    got = read(path, height=expected.shape[0], width=expected.shape[1])[0]
    assert psnr(got, expected) > 38 > 20 > psnr(got, expected[::-1])


def test_sample_aspect_ratio(tmp_path):
    frames = moving(2, 48, 32)
    path = write_video(tmp_path / "a.mp4", frames, aspect=Fraction(2))
    got = read(path, height=48, width=64)[0]
    assert psnr(got[:, 8:-8:2], frames[0][:, 4:-4]) > 25  # shown as 64 wide: nothing is cropped
    assert psnr(got[:, 8:-8:2], frames[0][:, 8:].repeat(2, 1)[:, : got[:, 8:-8:2].shape[1]]) < 25


def test_cover_then_centre_crop_with_antialiasing(tmp_path):
    fine = np.zeros((2, 96, 192, 3), np.uint8)
    fine[:, ::2] = 255  # alternating rows: their average is gray, any single sample black or white
    got = read(write_video(tmp_path / "a.mkv", fine, codec="ffv1", pix_fmt="bgr0"), height=24, width=24)[0]
    assert np.abs(got.astype(int) - 128).max() <= 2

    frames = moving(2, 96, 192)
    got = read(write_video(tmp_path / "b.mkv", frames, codec="ffv1", pix_fmt="bgr0"), height=24, width=24)[0]
    averaged = frames[0].astype(np.float64).reshape(24, 4, 48, 4, 3).mean((1, 3))
    assert psnr(got, averaged[:, 12:36]) > 45


def test_truncated_file_keeps_what_decodes(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving(36))
    whole = read(path, height=48, width=64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    notes = []
    kept = read(path, height=48, width=64, note=notes.append)
    assert 5 < len(kept) < 30
    np.testing.assert_array_equal(kept, whole[: len(kept)])
    assert len(notes) == 1 and notes[0].startswith(f"damaged after {len(kept)} source frames")


def test_single_frame_and_last_group(tmp_path):
    assert len(read(write_video(tmp_path / "a.mp4", levels(1)))) == 1
    # Two-pass B-frames come out after the end of the file: none may be lost.
    path = write_video(tmp_path / "b.mp4", levels(11), options={"preset": "medium", "bf": "3"})
    assert [number(f) for f in read(path)] == list(range(11))


def test_unusable_files_say_why(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
    (tmp_path / "folder.mp4").mkdir()
    write_audio(tmp_path / "audio.mp4")
    write_video(tmp_path / "thin.mp4", moving(1, 4, 400))
    for name, reason in {
        "missing.mp4": "no such file",
        "folder.mp4": "a folder; give a file",
        "empty.mp4": "empty file",
        "text.mp4": "not a media file",
        "audio.mp4": "no video stream",
        "thin.mp4": "too elongated",
    }.items():
        with pytest.raises(InputError, match=f"{name}: .*{reason}"):
            read(tmp_path / name)
    with pytest.raises(InputError, match="fps is 0"):
        read(tmp_path / "thin.mp4", fps=0)


def test_names_that_are_no_unicode(tmp_path):
    source = write_video(tmp_path / "a.mp4", levels(2))
    path = tmp_path / b"caf\xe9 \xff.mp4".decode("utf-8", "surrogateescape")
    source.rename(path)
    assert len(read(path)) == 2


def test_deadline_counts_decoding_only(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", levels(4))
    now = [0.0]
    monkeypatch.setattr(decoding.time, "monotonic", lambda: now[0])
    for _ in read_frames(path, fps=12, height=32, width=32, deadline_seconds=5):
        now[0] += 100  # a slow caller is not the file's fault
    ticks = iter(range(0, 1000, 2))
    monkeypatch.setattr(decoding.time, "monotonic", lambda: next(ticks))
    with pytest.raises(InputError, match="longer than 5 s"):
        read(path, deadline_seconds=5)


def test_frames_stay_what_they_were(tmp_path):
    path = write_video(tmp_path / "a.mp4", levels(3))
    frames = read_frames(path, fps=24, height=32, width=32)
    first = next(frames)
    first[:] = 0
    assert next(frames).mean() > 5  # the repeat of the same source frame


def test_read_image(tmp_path):
    frame = moving(1, 48, 64)[0]
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
    picture.save(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", height=48, width=64), frame)
    assert read_image(tmp_path / "a.png", height=16, width=16).shape == (16, 16, 3)
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "b.png", height=16, width=16)
