import colorsys
import tracemalloc

import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.evaluation.metrics.appearance import COLUMNS, Appearance
from mpjax.evaluation.metrics.change import Change, reduced
from mpjax.evaluation.metrics.companions import COMPANIONS
from mpjax.evaluation.metrics.metric import Part, measure
from mpjax.evaluation.metrics.sampling import sampled
from mpjax.evaluation.metrics.videos import Video, with_segments

RNG = np.random.default_rng(0)
TEXTURE = RNG.integers(0, 256, (180, 320, 3), np.uint8)
FIELD = np.clip(np.kron(RNG.integers(60, 160, (18, 32, 3)), np.ones((10, 10, 1))), 0, 255).astype(np.uint8)


def video(frames, fps=8.0, **changes):
    frames = [*frames]
    return Video(name="v", fps=fps, frames=len(frames), read=lambda: iter(frames), **changes)


def scores(frames, fps=8.0, **changes):
    found = measure(video(frames, fps, **changes), [offer.make() for offer in COMPANIONS])
    return {score.metric: score for score in found}


def moving(count, shift=4):
    return [np.roll(FIELD, shift * i, axis=1) for i in range(count)]


def test_appearance_is_what_float64_says():
    frame = TEXTURE[:48, :60]
    row = dict(zip(COLUMNS, Appearance()(frame[None, None])[0], strict=True))
    rgb = frame.astype(np.float64) / 255
    luma = rgb @ [0.2126, 0.7152, 0.0722]
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in rgb.reshape(-1, 3)]
    laplacian = sum(np.roll(luma, step, axis)[1:-1, 1:-1] for step in (1, -1) for axis in (0, 1)) - 4 * luma[1:-1, 1:-1]
    assert row["exposure"] == pytest.approx(luma.mean(), abs=1e-6)
    assert row["contrast"] == pytest.approx(luma.std(), abs=1e-6)
    assert row["saturation"] == pytest.approx(np.mean([s * v for _, s, v in hsv]), abs=1e-6)
    assert row["warmth"] == pytest.approx((rgb[..., 0] - rgb[..., 2]).mean(), abs=1e-9)
    assert row["tint"] == pytest.approx((rgb[..., 1] - (rgb[..., 0] + rgb[..., 2]) / 2).mean(), abs=1e-9)
    assert row["sharpness"] == pytest.approx(np.log2((laplacian**2).mean() / luma.var()), abs=1e-5)


def test_sharpness_sees_blur_and_neither_gain_nor_bias():
    of = lambda frame: Appearance()(frame[None, None])[0, COLUMNS.index("sharpness")]  # noqa: E731
    plain = (TEXTURE // 4 * 2).astype(np.uint8)  # even, so that halving and shifting are exact
    assert of(plain // 2) == pytest.approx(of(plain), abs=1e-4)
    assert of(plain + 100) == pytest.approx(of(plain), abs=1e-4)
    wide = np.float32(plain)
    blurred = sum(np.roll(wide, step, 1) for step in (-1, 0, 1)) / 3
    assert of(blurred.astype(np.uint8)) < of(plain) - 0.3
    assert np.isnan(of(np.full((8, 8, 3), 7, np.uint8)))


def test_change_of_two_frames():
    other = np.roll(TEXTURE, 90, axis=0)
    a, b = (np.float64(frame.reshape(90, 2, 160, 2, 3)).mean((1, 3)) / 255 for frame in (TEXTURE, other))
    np.testing.assert_allclose(reduced(TEXTURE), a, atol=1e-6)
    centred = [(picture - picture.mean((0, 1))).ravel() for picture in (a, b)]
    luma = (b - a) @ [0.2126, 0.7152, 0.0722]
    rows, columns = np.arange(17) * 90 // 16, np.arange(17) * 160 // 16
    blocks = [
        abs(luma[rows[i] : rows[i + 1], columns[j] : columns[j + 1]].mean()) for i in range(16) for j in range(16)
    ]
    expected = [1 - np.corrcoef(*centred)[0, 1], max(blocks), np.abs(a - b).mean()]
    np.testing.assert_allclose(Change()(np.stack([TEXTURE, other])[None])[0], expected, atol=1e-5)
    np.testing.assert_allclose(Change()(np.stack([TEXTURE, TEXTURE])[None])[0], 0, atol=1e-6)
    # Gain and bias are no motion.
    assert Change()(np.stack([TEXTURE, TEXTURE // 2 + 60])[None])[0, 0] < 1e-3
    flat = np.full_like(TEXTURE, 9)
    assert Change()(np.stack([[flat, flat + 1], [flat, TEXTURE]]))[:, 0].tolist() == [0, 1]


def test_a_frozen_video_is_dead_and_a_moving_one_is_not():
    still, moves = scores([FIELD] * 24), scores(moving(24))
    assert still["dead_motion_rate"].value == 1 and moves["dead_motion_rate"].value == 0
    assert still["motion_energy"].value == pytest.approx(0, abs=1e-5) and moves["motion_energy"].value > 0.5
    half = scores([*moving(16), *[np.roll(FIELD, 60, axis=1)] * 15])
    assert half["dead_motion_rate"].value == 0.5
    assert half["dead_motion_rate"].drift == 1  # moves at the start, stands at the end
    # A small thing counts as alive, and as little motion.
    things = [FIELD.copy() for _ in range(24)]
    for i, frame in enumerate(things):
        frame[80:100, 5 * i : 5 * i + 20] = 255
    small = scores(things)
    assert small["dead_motion_rate"].value == 0 and 0 < small["motion_energy"].value < moves["motion_energy"].value


def test_motion_energy_is_a_second_whatever_the_frame_rate():
    # Blocks of 40 px that move at 60 px/s: correlation falls linearly with the way, so by the same in a second.
    blocks = np.kron(np.random.default_rng(1).integers(0, 256, (9, 8, 3)), np.ones((20, 40, 1))).astype(np.uint8)
    centred = blocks - blocks.mean((0, 1))
    beside = (centred * np.roll(centred, 40, axis=1)).mean() / np.square(centred).mean()
    for fps in (10, 12, 20, 30):
        frames = [np.roll(blocks, round(60 / fps * i), axis=1) for i in range(2 * fps)]
        assert scores(frames, float(fps))["motion_energy"].value == pytest.approx(60 / 40 * (1 - beside), rel=0.01), fps


def test_levels_and_their_drift():
    frames = [np.clip(FIELD.astype(int) + 2 * i, 0, 255).astype(np.uint8) for i in range(40)]
    found = scores(frames)
    assert found["exposure"].drift == pytest.approx((34 + 39 - 0 - 5) / 255, abs=1e-6)  # 6 of 40 frames at each end
    assert found["contrast"].drift == pytest.approx(0, abs=1e-6) and found["warmth"].drift == pytest.approx(0, abs=1e-9)
    assert len(found["exposure"].values) == 40 and found["exposure"].at == tuple(range(40))


def test_sharpness_slope_is_in_factors_of_two_a_minute():
    base = np.float32(FIELD) - 110
    detail = np.where(np.indices(FIELD.shape[:2]).sum(0) % 2, 1, -1)[..., None]
    frames = [np.uint8(np.clip(base + 110 + 40 * 0.5 ** (i / 80) * detail, 0, 255)) for i in range(81)]  # 10 s at 8 fps
    found = scores(frames)["sharpness_slope"]
    ends = []
    for frame in (frames[0], frames[-1]):
        luma = frame / 255 @ [0.2126, 0.7152, 0.0722]
        laplacian = sum(np.roll(luma, step, axis) for step in (1, -1) for axis in (0, 1)) - 4 * luma
        ends.append(np.log2(np.square(laplacian[1:-1, 1:-1]).mean() / luma.var()))
    assert found.value == pytest.approx((ends[1] - ends[0]) * 6, rel=0.15) and found.value < -3
    assert found.drift is None  # it is one already
    back = scores(frames[::-1], backward=True)["sharpness_slope"]  # generated from its end, it blurs as much
    assert back.value == pytest.approx(found.value)


def test_return_to_start():
    away = np.ascontiguousarray(FIELD[::-1, ::-1])
    there_and_back = [*[FIELD] * 20, *[away] * 60, *[FIELD] * 20]
    for_good = [*[FIELD] * 20, *[away] * 80]
    assert scores(there_and_back)["return_to_start"].value == pytest.approx(1, abs=1e-5)
    assert scores(for_good)["return_to_start"].value < 0.3
    curve = scores(there_and_back)["return_to_start"]
    assert min(curve.values) < 0.3 and curve.at == tuple(range(1, 100))
    # Generated backward, the start is the last frame.
    assert scores(for_good[::-1], backward=True)["return_to_start"].value == pytest.approx(
        scores(for_good)["return_to_start"].value
    )


def test_seam_jump_at_the_joins():
    frames = [np.roll(TEXTURE, i, axis=1) for i in range(60)]
    smooth = scores(frames, joins=(20, 40))
    assert smooth["seam_jump"].value == pytest.approx(0, abs=0.1)
    bright = [np.clip(frame.astype(int) + 50 * (i >= 20), 0, 255).astype(np.uint8) for i, frame in enumerate(frames)]
    jumps = scores(bright, joins=(20, 40))["seam_jump"]
    assert jumps.values[0] > 0.5 and jumps.values[1] == pytest.approx(0, abs=0.1) and jumps.at == (20, 40)
    assert scores(bright, joins=(30,))["seam_jump"].value == pytest.approx(0, abs=0.1)  # the jump is elsewhere
    assert "segment-frames" in scores(frames)["seam_jump"].reason


def test_joins_of_segments():
    assert with_segments(video([FIELD] * 10), 3).joins == (1, 4, 7)
    assert with_segments(video([FIELD] * 10, backward=True), 3).joins == (3, 6, 9)
    assert with_segments(video([FIELD] * 10), None).joins == ()
    with pytest.raises(InputError, match="--segment-frames 0"):
        with_segments(video([FIELD]), 0)


def test_parts_look_at_the_frames_of_the_whole():
    for fps, count in ((24.0, 100), (5.0, 31), (30.0, 7)):
        whole = video([FIELD] * count, fps)
        places = sampled(Part(whole, 0, count))
        for start, stop in ((0, count // 2), (count // 3, count), (count - 1, count)):
            some = sampled(Part(whole, start, stop))
            inside = [i for i in places if start <= i < stop]
            assert [*some] == (inside or [start])


def test_short_and_flat_videos_give_reasons():
    one = scores([FIELD])
    assert one["exposure"].value is not None
    for name in ("motion_energy", "dead_motion_rate", "return_to_start", "sharpness_slope", "seam_jump"):
        assert one[name].value is None and one[name].reason
    black = scores([np.zeros_like(FIELD)] * 9)
    assert black["exposure"].value == 0 and black["sharpness"].value is None and black["dead_motion_rate"].value == 1


@pytest.mark.parametrize("backward", [False, True])
def test_memory_does_not_grow_with_the_video(backward):
    frame = TEXTURE

    def read(count):
        for i in range(count):
            yield np.roll(frame, 5 * i, axis=1)

    metrics = [offer.make() for offer in COMPANIONS]
    peaks = []
    for count in (120, 1440):  # a minute at 24 frames a second
        clip = Video(
            name="v",
            fps=24.0,
            frames=count,
            read=lambda count=count: read(count),
            joins=(*range(33, count, 33),),
            backward=backward,
        )
        tracemalloc.start()
        measure(clip, metrics)
        peaks.append(tracemalloc.get_traced_memory()[1] / frame.nbytes)
        tracemalloc.stop()
    assert peaks[1] < 40 and peaks[1] - peaks[0] < 14  # in frames; the rows take ten, holding all frames 1,440
