import tracemalloc

import numpy as np
import pytest

from mpjax.data.media import Media
from mpjax.data.raw import shots as module
from mpjax.data.raw.measure import measure
from mpjax.data.raw.shots import CHUNK, ShotDetector, unlikeness
from tests.data.media import join, scene, write_video

FPS = 24
PANS = [(0, 0), (0, 0.4), (0.2, -0.3), (0, 0), (0, 1.0), (-0.2, 0)]


def small(video):
    """Frames at 18 × 32 by the mean of blocks of 3 × 3."""
    n, height, width, _ = video.shape
    return video.reshape(n, height // 3, 3, width // 3, 3, 3).mean((2, 4)).round().astype(np.uint8)


def shots(seed, count, frames=60):
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(len(PANS))
    return [
        scene(100 * seed + i, frames + int(rng.integers(20)), pan=PANS[kinds[i % len(PANS)]], walker=i % 2)
        for i in range(count)
    ]


@pytest.mark.parametrize("dissolve", [0, 12], ids=["hard", "dissolves of 0.5 s"])
def test_cuts_at_known_times(dissolve):
    found = known = wrong = 0
    for seed in range(4):
        video, places = join(shots(seed, 6), dissolve)
        cuts = ShotDetector().cuts(small(video), FPS)
        known += len(places)
        found += sum(any(abs(cut.time - place / FPS) < 0.2 for cut in cuts) for place in places)
        wrong += sum(all(abs(cut.time - place / FPS) >= 0.2 for place in places) for cut in cuts)
        assert all((cut.length > 0) == (dissolve > 0) for cut in cuts)
    assert known == 20 and found >= 0.9 * known and wrong == 0


def test_a_hard_cut_is_found_at_its_frame():
    video, places = join(shots(9, 3))
    assert [round(cut.time * FPS) for cut in ShotDetector().cuts(small(video), FPS)] == places


def test_no_cut_in_single_shots():
    minute, found = 0.0, []
    for seed, pan in enumerate(PANS):
        video = scene(seed, 200, pan=pan, walker=1.5)
        found += ShotDetector().cuts(small(video), FPS)
        minute += len(video) / FPS / 60
    assert minute > 0.8 and len(found) <= minute


@pytest.mark.parametrize(
    "change",
    [
        lambda n: 1.6 if 40 <= n < 43 else 1,  # a flash
        lambda n: 1e3 if 40 <= n < 43 else 1,  # one that leaves nothing but white
        lambda n: 0.4 if n >= 40 else 1,  # lights out, at once
        lambda n: 1 - 0.6 * np.clip((n - 40) / 12, 0, 1),  # and slowly
        lambda n: np.clip(n / 24, 0, 1),  # a fade from black
    ],
    ids=["flash", "white", "lights", "dimmer", "fade"],
)
def test_light_is_no_cut(change):
    video = scene(3, 90, pan=(0, 0.3)).astype(float)
    video = np.stack([np.clip(frame * change(n), 0, 255) for n, frame in enumerate(video)]).astype(np.uint8)
    assert ShotDetector().cuts(small(video), FPS) == []


def test_a_jump_is_that_of_its_pair_wherever_chunks_end(monkeypatch):
    video, places = join(shots(2, 4))
    for more in (-1, 0, 1):
        monkeypatch.setattr(module, "CHUNK", int(places[0]) + more)
        assert [round(cut.time * FPS) for cut in ShotDetector().cuts(small(video), FPS)] == places


def test_memory_grows_by_little_for_a_second():
    """Bytes above the pictures themselves, of which a second has 41,472."""
    picture = small(scene(0, 64, pan=(0, 0.4)))
    most = {}
    for count in (2 * CHUNK, 5 * CHUNK):
        pictures = np.resize(picture, (count, *picture.shape[1:]))
        tracemalloc.start()
        ShotDetector(dissolve_seconds=(0.4,)).cuts(pictures, FPS)
        most[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (most[5 * CHUNK] - most[2 * CHUNK]) / (3 * CHUNK / FPS) < 10_000


def test_a_whip_pan_is_no_cut():
    # 40 of 96 pixels a frame: neighbours have little in common, all of them equally little.
    assert ShotDetector().cuts(small(scene(5, 60, pan=(0, 40))), FPS) == []


def test_a_repeated_frame_is_no_context():
    # 6 fps shown at 24: every jump but the first of four is 0, and a cut stands out from the jumps alone.
    video, places = join([scene(i, 24, pan=(0, 1.0)) for i in range(3)])
    cuts = ShotDetector().cuts(np.repeat(small(video), 4, axis=0), FPS)
    assert [round(cut.time * FPS / 4) for cut in cuts] == places


def test_unlikeness():
    picture = small(scene(0, 1))[0].astype(float)
    moved = np.roll(picture, (1, -2), (0, 1))
    darker = 0.5 * picture + 30
    other = small(scene(1, 1))[0]
    same, shifted, dimmed, unrelated = unlikeness(np.stack([picture] * 4), np.stack([picture, moved, darker, other]))
    assert same < 0.01 and dimmed < 0.05 and shifted < 0.05 and unrelated > 0.5
    dark, bright = np.full((2, *picture.shape), [[[[0]]], [[[200]]]])
    assert unlikeness(np.stack([dark, dark]), np.stack([bright, picture])) == pytest.approx([0, 0.9], abs=0.1)


def test_too_short_for_anything():
    for count in (0, 1, 2, 5):
        assert ShotDetector().cuts(small(scene(0, count or 1))[:count], FPS) == []


def test_through_a_file_at_another_rate(tmp_path):
    video, places = join([scene(i, 45, 108, 192, pan=(0, 0.5)) for i in range(4)])
    path = write_video(tmp_path / "a.mp4", video, fps=30, options={"crf": "28"})
    measured = measure(Media(path=path), fps=FPS)
    cuts = ShotDetector().cuts(measured.pictures, FPS)
    assert [cut.time for cut in cuts] == pytest.approx([place / 30 for place in places], abs=1.5 / FPS)
