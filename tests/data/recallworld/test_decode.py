import numpy as np
import pytest

from mpjax.data.recallworld.clips import sample_clip
from mpjax.data.recallworld.decode import (
    background_mask,
    decode_exposure,
    decode_identity,
    decode_position,
    decode_toys,
    decode_visit,
    off_manifold,
)
from mpjax.data.recallworld.render import render, render_background
from mpjax.data.recallworld.sprites import sprite_table
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError

R1 = World()
D1 = World(scene="D1")


def toy_frames(world, seeds, segments=4):
    """Frames that show the toy of each clip: frames, backgrounds `[n, H, W, 3]`, identities, positions."""
    clips = [sample_clip(world, seed, segments) for seed in seeds]
    video, background = render(world, clips), render_background(world, clips)
    alone = np.stack([c.visible[0] for c in clips])
    if world.scene == "R6":
        alone[:, : 1 + world.segment_frames] = False  # two toys at once
    clip, frame = np.nonzero(alone)
    identity = np.asarray([c.identities[0] for c in clips])[clip]
    position = np.stack([c.positions[0] for c in clips])[clip, frame]
    return video[clip, frame], background[clip, frame], identity, position


def every_valid_frame(world, background):
    """All frames the world could show over one background `[H, W, 3]`, drawn one by one: name → frame."""
    masks, colours = sprite_table(world)
    step = 1 if world.motion == "free" else world.patch
    places = range(0, world.frame_size - world.patch + 1, step)
    frames = {("empty",): background.astype(float)} if world.has_return else {}
    for sprite in range(world.ids + (world.scene in ("R1", "R2", "R3"))):
        for row in places:
            for column in places:
                frame = background.astype(float)
                cell = frame[row : row + world.patch, column : column + world.patch]
                cell[masks[sprite]] = colours[sprite]
                frames[(sprite, row, column)] = frame
    return frames


WORLDS = [
    R1,
    World(frame_size=16, colours=8, shapes=4),
    World(frame_size=12, colours=8, shapes=3),
    World(frame_size=16, patch=8),
    D1,
    World(scene="D1", motion="free"),
    World(scene="D1", stripe=True),
    World(scene="R4", frame_size=12),
    World(scene="R5"),
    World(scene="R6"),
    World(scene="D2"),
    World(frame_size=32, patch=8, segment_frames=8),
    World(scene="D1", motion="free", frame_size=32, patch=8),
]


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: f"{w.scene}-{w.frame_size}-{w.patch}-{w.motion}-{w.stripe}")
def test_clean_frames_decode_without_error(world):
    frames, background, identity, position = toy_frames(world, range(40))
    decoded, residual = decode_identity(world, frames, background)
    np.testing.assert_array_equal(decoded, identity)
    assert residual.max() < 1e-9
    toys = decode_toys(world, frames, background)
    np.testing.assert_array_equal(toys.identity[:, 0], identity)
    np.testing.assert_array_equal(toys.position[:, 0], position)
    assert off_manifold(world, frames, background).max() < 1e-9


BRUTE = [
    R1,
    D1,
    World(scene="D1", motion="free"),
    World(colours=2, shapes=3, frame_size=12),
    World(scene="R5"),
    World(scene="R6"),
]


@pytest.mark.parametrize("world", BRUTE, ids=lambda w: f"{w.scene}-{w.frame_size}-{w.motion}")
def test_against_brute_force(world):
    rng = np.random.default_rng(0)
    frames, background, _, _ = toy_frames(world, range(12))
    frames, background = frames[:8], background[:8]
    frames = np.concatenate([frames, background]) + rng.normal(0, 0.5, (16, *frames.shape[1:]))
    background = np.concatenate([background, background])
    toys = decode_toys(world, frames, background)
    nearest, mask = off_manifold(world, frames, background), background_mask(world, frames, background)
    for n in range(16):
        valid = every_valid_frame(world, background[n])
        cost = {name: float(((frames[n] - frame) ** 2).mean()) for name, frame in valid.items()}
        best = min(cost, key=cost.get)
        toy = min((name for name in cost if name[0] != "empty" and name[0] < world.ids), key=cost.get)
        assert (toys.identity[n, 0], *toys.position[n, 0]) == toy
        assert toys.residual[n] == pytest.approx(cost[toy], rel=1e-9)
        assert nearest[n] == pytest.approx(cost[best], rel=1e-9)
        np.testing.assert_array_equal(mask[n], (valid[best] == background[n].astype(float)).all(-1))


def test_the_ball_and_the_empty_frame_are_valid_where_they_belong():
    clips = [sample_clip(R1, seed, 6, 4) for seed in range(20)]
    video, background = render(R1, clips), render_background(R1, clips)
    ball = np.stack([c.visible[1] for c in clips])
    assert ball.any()
    assert off_manifold(R1, video[ball], background[ball]).max() < 1e-9
    assert off_manifold(R1, video[:, 0], background[:, 0]).max() < 1e-9
    np.testing.assert_array_equal(
        background_mask(R1, video[ball], background[ball]), (video[ball] == background[ball]).all(-1)
    )
    # No D1 clip has a white ball, and no toy looks like it.
    assert off_manifold(D1, video[ball], background[ball]).min() > 0.05
    assert decode_identity(R1, video[ball], background[ball])[1].min() > 0.05


def test_identity_survives_noise_and_residual_measures_it():
    rng = np.random.default_rng(1)
    for world in (R1, World(frame_size=16, colours=8, shapes=4)):
        frames, background, identity, _ = toy_frames(world, range(150))
        for sigma, least in ((0.2, 1.0), (0.4, 0.99), (0.8, 0.75)):
            noisy = frames + rng.normal(0, sigma, frames.shape)
            decoded, residual = decode_identity(world, noisy, background)
            assert (decoded == identity).mean() >= least
            assert residual.mean() == pytest.approx(sigma**2, rel=0.05)
        mush = background + rng.normal(0, 0.1, background.shape)
        assert decode_identity(world, mush, background)[1].min() > 1.5 * 0.01


def test_a_visit_pools_its_frames():
    rng = np.random.default_rng(2)
    clips = [sample_clip(R1, seed, 4) for seed in range(150)]
    video, background = (f(R1, clips)[:, 1:5] for f in (render, render_background))
    identity = np.asarray([c.identities[0] for c in clips])
    noisy = video + rng.normal(0, 1.2, video.shape)
    pooled, residual = decode_visit(R1, noisy, background)
    single = decode_identity(R1, noisy[:, 0], background[:, 0])[0]
    assert (pooled == identity).mean() >= 0.97 > (single == identity).mean() + 0.03
    for n in (0, 1):
        cost = np.zeros(R1.ids)
        for frame, behind in zip(noisy[n], background[n], strict=True):
            valid = every_valid_frame(R1, behind)
            for toy in range(R1.ids):
                places = [v for name, v in valid.items() if name[0] == toy]
                cost[toy] += min(((frame - v) ** 2).mean() for v in places) / 4
        assert pooled[n] == cost.argmin() and residual[n] == pytest.approx(cost.min(), rel=1e-9)


def shifted(background, mask, colour, row, column):
    """A sprite at a fractional place: the four whole-pixel sprites around it, blended."""
    size, patch = background.shape[0], len(mask)
    alpha = np.zeros((size + 1, size + 1))
    top, left = int(row), int(column)
    for dy, wy in ((0, 1 - (row - top)), (1, row - top)):
        for dx, wx in ((0, 1 - (column - left)), (1, column - left)):
            alpha[top + dy : top + dy + patch, left + dx : left + dx + patch] += wy * wx * mask
    alpha = alpha[:size, :size, None]
    return background * (1 - alpha) + alpha * colour


def test_position_to_a_fraction_of_a_pixel():
    rng = np.random.default_rng(3)
    masks, colours = sprite_table(R1)
    background = render_background(R1, [sample_clip(R1, seed, 2) for seed in range(200)])[:, 0]
    identity = rng.integers(0, R1.ids, 200)
    place = rng.uniform(0, 4, (200, 2))
    frames = np.stack([shifted(background[n], masks[k], colours[k], *place[n]) for n, k in enumerate(identity)])
    for sigma, worst in ((0.0, 0.125), (0.1, 0.15), (0.4, 0.15)):
        noisy = frames + rng.normal(0, sigma, frames.shape)
        error = np.abs(decode_position(R1, noisy, background, identity=identity)[0] - place)
        assert error.mean() <= worst
        assert sigma > 0 or error.max() <= 0.25
    found, residual = decode_position(R1, frames, background, identity=identity)
    for n in range(3):
        grid = [(r / 4, c / 4) for r in range(17) for c in range(17)]
        draws = [shifted(background[n], masks[identity[n]], colours[identity[n]], *p) for p in grid]
        cost = [((frames[n] - draw) ** 2).mean() for draw in draws]
        assert tuple(found[n]) == grid[int(np.argmin(cost))] and residual[n] == pytest.approx(min(cost), rel=1e-9)
    found, _ = decode_position(R1, frames, background)
    assert np.abs(found - place).mean() < 0.125
    edge, behind, toy, _ = toy_frames(R1, range(60))
    edge = edge + rng.normal(0, 1, edge.shape)
    at, _ = decode_position(R1, edge, behind, identity=toy)
    assert at.min() == 0 and at.max() == 4
    on_grid = np.round(place * 4) / 4
    frames = np.stack([shifted(background[n], masks[k], colours[k], *on_grid[n]) for n, k in enumerate(identity)])
    found, residual = decode_position(R1, frames, background, identity=identity)
    np.testing.assert_allclose(found, on_grid)
    assert residual.max() < 1e-9


@pytest.mark.parametrize("world", [World(scene="D1", balls=2), World(scene="D1", balls=3, frame_size=16)])
def test_several_balls(world):
    rng = np.random.default_rng(4)
    clips = [sample_clip(world, seed, 3) for seed in range(30)]
    video, background = (
        f(world, clips)[:, 1:].reshape(-1, *([world.frame_size] * 2), 3) for f in (render, render_background)
    )
    place = np.stack([c.positions[:, 1:] for c in clips]).transpose(0, 2, 1, 3).reshape(-1, world.balls, 2)
    identity = np.repeat([c.identities for c in clips], 12, axis=0)
    for sigma in (0.0, 0.2):
        noisy = video + rng.normal(0, sigma, video.shape)
        toys = decode_toys(world, noisy, background)
        for n in range(len(video)):
            told = {(i, *p) for i, p in zip(toys.identity[n].tolist(), toys.position[n].tolist(), strict=True)}
            assert told == {(i, *map(float, p)) for i, p in zip(identity[n], place[n], strict=True)}
        assert toys.residual.mean() == pytest.approx(sigma**2, rel=0.05, abs=1e-9)
        assert off_manifold(world, noisy, background).mean() == pytest.approx(sigma**2, rel=0.05, abs=1e-9)
    assert (background_mask(world, video, background) == (video == background).all(-1)).all()
    # D1 shows all its balls: one fewer is no valid frame, nor is one more.
    fewer = World(scene="D1", balls=world.balls - 1, frame_size=world.frame_size)
    assert off_manifold(fewer, video, background).min() > 0.01
    first = sample_clip(fewer, 0, 3)
    one = render(fewer, [first])[0], render_background(fewer, [first])[0]
    assert off_manifold(world, *one).min() > 0.01


@pytest.mark.parametrize("gain", [((1.3, 0.0), (1.0, 0.2), (0.7, -0.1))])
def test_injected_exposure_comes_back_exactly(gain):
    frames, background, _, _ = toy_frames(R1, range(20))
    mask = background_mask(R1, frames, background)
    assert not mask.all(axis=(1, 2)).any()
    injected, bias = (np.asarray(x) for x in zip(*gain, strict=True))
    found, shift = decode_exposure(frames * injected + bias, background, mask)
    np.testing.assert_allclose(found, np.broadcast_to(injected, found.shape), atol=1e-6)
    np.testing.assert_allclose(shift, np.broadcast_to(bias, shift.shape), atol=1e-6)
    found, shift = decode_exposure(background * injected + bias, background)
    np.testing.assert_allclose(found, np.broadcast_to(injected, found.shape), atol=1e-6)
    # The same numbers by NumPy's least squares, on noisy frames.
    noisy = frames + np.random.default_rng(5).normal(0, 0.1, frames.shape)
    found, shift = decode_exposure(noisy, background, mask)
    for n, c in ((0, 0), (7, 1), (13, 2)):
        known = background[n, ..., c][mask[n]].astype(float)
        line = np.polyfit(known, noisy[n, ..., c][mask[n]], 1)
        np.testing.assert_allclose([found[n, c], shift[n, c]], line, rtol=1e-6)


def test_wrong_input_is_named():
    frames, background, identity, _ = toy_frames(R1, range(2))
    with pytest.raises(InputError, match="frames"):
        decode_identity(R1, frames[:, :4], background[:, :4])
    with pytest.raises(InputError, match="background"):
        off_manifold(R1, frames, background[:1])
    with pytest.raises(InputError, match="step"):
        decode_position(R1, frames, background, step=0.3)
    with pytest.raises(InputError, match="identity"):
        decode_position(R1, frames, background, identity=identity[:1])
    with pytest.raises(InputError, match="frames"):
        decode_position(R1, frames[:, :4], background[:, :4], identity=identity)
    with pytest.raises(InputError, match="visit"):
        decode_visit(R1, frames, background)
    with pytest.raises(InputError, match="mask"):
        decode_exposure(frames, background, np.zeros(frames.shape[:3], bool))
    with pytest.raises(InputError, match="mask"):
        decode_exposure(frames, background[:1])
    two = World(scene="D1", balls=2)
    for decode in (decode_identity, decode_visit, decode_position):
        with pytest.raises(InputError, match=r"world\.balls"):
            decode(two, frames, background)


@pytest.mark.parametrize(
    "world",
    [
        World(frame_size=64, patch=16, colours=8, segment_frames=36, fps=24, reach=(1, 2, 16)),
        World(scene="D1", motion="free", frame_size=64, patch=16),
    ],
    ids=["T2", "free"],
)
def test_large_frames(world):
    frames, background, identity, position = toy_frames(world, [5], segments=2)
    noisy = (frames + np.random.default_rng(6).normal(0, 0.4, frames.shape))[:8]
    background, identity, position = background[:8], identity[:8], position[:8]
    toys = decode_toys(world, noisy, background)
    np.testing.assert_array_equal(toys.identity[:, 0], identity)
    np.testing.assert_array_equal(toys.position[:, 0], position)
    assert off_manifold(world, noisy, background).mean() == pytest.approx(0.16, rel=0.05)
    found, _ = decode_position(world, noisy, background, identity=identity)
    assert np.abs(found - position).max() <= 0.25
