"""Generation under a codec that holds frames back: what is written is final, all of it, and the same after a stop."""

import dataclasses

import numpy as np
import pytest

from mpjax import api
from mpjax.codecs.hunyuan_vae import HunyuanVaeCodec
from mpjax.data.video import read_frames
from mpjax.errors import InputError
from mpjax.generation import stream
from mpjax.generation.request import Request, make_plan
from mpjax.generation.rollout import Rollout
from mpjax.generation.stream import write_video
from tests.data.media import moving
from tests.data.media import write_video as write_clip
from tests.fixtures import reference_vae, tiny_vae
from tests.fixtures.late_codec import LateCodec
from tests.generation.test_rollout import PROMPTS
from tests.generation.test_stream import Countdown, frames_of

SECONDS = 5.5  # 22 frames: 6 segments of 4, the last one cut to 1


@pytest.fixture(params=[3, 6])  # less than a segment, and more
def late(request, trained, rollout, monkeypatch):
    """(its delay, a function that writes a video under such a codec, the frames it wrote by part)."""
    codec, written = LateCodec(delay=request.param), {}
    run = dataclasses.replace(trained.run, codec=codec)
    monkeypatch.setattr(rollout, "codec", codec)
    write_part = stream.write_part

    def spy(path, frames, **fields):
        written[path.name] = frames[:, ::2, ::2]
        write_part(path, frames, **fields)

    monkeypatch.setattr(stream, "write_part", spy)

    def write(out, *, stopping=None, **fields):
        plan = make_plan(run, trained.step, Request(**{"seconds": SECONDS, "least": 16, **fields}))
        return write_video(run, lambda: rollout, plan, out, stopping=stopping, say=lambda _: None)

    return request.param, write, written


def plain_frames(trained, rollout) -> np.ndarray:
    """The same video under the codec `identity`."""
    plan = make_plan(trained.run, trained.step, Request(seconds=SECONDS, least=16))
    frame, state = rollout.start(plan.prompt(0), plan.reference, plan.seed)
    frames = [frame]
    for segment in range(plan.segments):
        shown, state = rollout.generate(state, plan.prompt(segment))
        frames.append(shown)
    return np.concatenate(frames)


def joined(written) -> np.ndarray:
    return np.concatenate([written[name] for name in sorted(written)])


def negative(frames: np.ndarray) -> np.ndarray:
    return 255 - frames


def test_parts_hold_what_is_final_and_the_last_one_the_rest(trained, rollout, late, tmp_path, monkeypatch):
    delay, write, written = late
    result = write(tmp_path / "a.mp4")
    assert result.finished and result.frames == 22 == len(frames_of(tmp_path / "a.mp4"))
    sizes = [len(written.get(f"part_{n:06d}.mp4", ())) for n in range(7)]
    assert sizes == ([0, 2, 4, 4, 4, 4, 4] if delay == 3 else [0, 0, 3, 4, 4, 4, 7])
    frames = joined(written)
    monkeypatch.setattr(rollout, "codec", trained.run.codec)
    plain = plain_frames(trained, rollout)
    # 25 frames are generated and 22 shown: with a delay of 3 each of them has seen what follows.
    final = 25 - delay
    assert np.abs(frames[:final].astype(int) - negative(plain)[:22][:final]).max() <= 1
    np.testing.assert_array_equal(frames[final:], plain[final:22])


def test_a_partial_video_shows_the_rest_too(late, tmp_path):
    _, write, written = late
    whole, out = tmp_path / "whole.mp4", tmp_path / "a.mp4"
    write(whole)
    frames = joined(written)
    for segments, count in ((0, 1), (1, 5), (0, 5), (2, 13)):
        result = write(out, stopping=Countdown(segments))
        assert not result.finished and result.frames == count == len(frames_of(result.path))
        assert len(written.pop("part_rest.mp4")) == min(count, late[0])
    assert write(out).finished
    assert out.read_bytes() == whole.read_bytes()
    np.testing.assert_array_equal(joined(written), frames)
    assert {path.name for path in tmp_path.iterdir()} == {"whole.mp4", "whole.mp4.json", "a.mp4", "a.mp4.json"}


def test_a_kill_between_part_and_state(late, tmp_path, monkeypatch):
    _, write, _ = late
    write(tmp_path / "whole.mp4")
    save = stream.save_state
    for segment in (0, 1, 3, 6):

        def trap(path, value, metadata, segment=segment):
            if metadata["segment"] == segment:
                raise KeyboardInterrupt
            save(path, value, metadata)

        monkeypatch.setattr(stream, "save_state", trap)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "a.mp4")
    monkeypatch.setattr(stream, "save_state", save)
    write(tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_lost_part_is_noticed(late, tmp_path):
    _, write, _ = late
    write(tmp_path / "a.mp4", stopping=Countdown(5))
    (tmp_path / "a.mp4.parts" / "part_000005.mp4").unlink()
    with pytest.raises(InputError, match=r"does not start at frame"):
        write(tmp_path / "a.mp4")
    assert not (tmp_path / "a.mp4").exists()


def test_a_clip_stays_as_it_is(rollout, late, tmp_path, monkeypatch):
    """Three given segments: their frames are the clip's own, and their latents reach the history in time."""
    _, write, written = late
    clip = write_clip(tmp_path / "clip.mp4", moving(15, 64, 64), fps=4, pix_fmt="yuv444p")
    pixels = np.stack(list(read_frames(clip, fps=4, height=8, width=8)))
    seen, generate = [], rollout.generate
    monkeypatch.setattr(rollout, "generate", lambda state, *rest: seen.append(state) or generate(state, *rest))
    assert write(tmp_path / "a.mp4", video=clip).frames == 22
    frames = joined(written)
    assert len(frames) == 22 and len(seen) == 3
    np.testing.assert_array_equal(frames[:13], pixels[:13])
    history = seen[0].video.history
    np.testing.assert_allclose(history.frames[0], pixels[6:13] / np.float32(127.5) - 1, atol=1e-6)
    for segments in (2, 2, 1):
        assert not write(tmp_path / "b.mp4", video=clip, stopping=Countdown(segments)).finished
    write(tmp_path / "b.mp4", video=clip)
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


def test_the_same_from_python(trained, rollout, late, tmp_path, monkeypatch):
    delay, write, written = late
    write(tmp_path / "a.mp4")
    monkeypatch.setattr(Rollout, "of", lambda trained, sampling, offload: rollout)
    late_run = dataclasses.replace(trained, run=dataclasses.replace(trained.run, codec=rollout.codec))
    model = api.Model(late_run, api.SamplingRequest(), None, False)
    np.testing.assert_array_equal(model.generate(seconds=SECONDS), joined(written))
    shown, state = model.next_segment(model.start("a"), "a")
    assert len(shown) == max(5 - delay, 0) and len(model.finish(state)) == min(delay, 5)


@pytest.mark.slow
def test_the_autoencoder_segment_by_segment(rollout, tmp_path, monkeypatch):
    folder = tiny_vae.write_folder(tmp_path / "vae", channels=3)
    codec = HunyuanVaeCodec(weights=str(folder), segment_frames=4, window=8)
    monkeypatch.setattr(rollout, "codec", codec)
    latents = reference_vae.latents(9, 8, 8)[..., :3]
    frames, state = rollout.start(PROMPTS[0], latents[0, :1], seed=0)
    shown = [frames]
    for n in range(2):
        frames, state = rollout.give(state, latents[0, 1 + 4 * n : 5 + 4 * n])
        shown.append(frames)
        assert sum(map(len, shown)) == int(state.frames)
    assert [len(frames) for frames in shown] == [0, 4, 16]
    whole = np.round((codec.decode(latents)[0] + 1) * 127.5)
    np.testing.assert_array_equal(np.concatenate([*shown, rollout.finish(state)]), whole)
