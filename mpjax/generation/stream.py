"""Generates into a file while it goes: nothing grows with the length, and nothing is lost when the process dies.

Beside `out` lies the folder `<out>.parts`: one playable mp4 a segment, with the frames that are final after it, and the
state after the newest of them. A segment's part is written first and the state second, so a kill in between repeats one
segment and writes the same bytes again. At the end the parts are joined, never encoded again. `<out>.json` says what
the video is.
"""

import dataclasses
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpjax import config
from mpjax.data.video_writer import enlarge, join_parts, write_part
from mpjax.errors import InputError
from mpjax.generation import given
from mpjax.generation.memory import resident_mb
from mpjax.generation.request import Plan, Request, make_plan
from mpjax.generation.rollout import Rollout
from mpjax.generation.state import GenerationState, load_state, save_state
from mpjax.progress import Progress
from mpjax.weights import Run, TrainedRun
from mpjax.whole_files import write_json

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationResult:
    """What one call did.

    Attributes:
        path: the video, or the partial one after a stop.
        frames: its frames.
        finished: whether it is the whole video.
        seconds_per_segment: network, codec and writing, for the segments of this call; the first one compiles.
        rss_mb: resident memory after each of them in MiB, None where the platform does not tell.
    """

    path: Path
    frames: int
    finished: bool
    seconds_per_segment: tuple[float, ...] = ()
    rss_mb: tuple[float | None, ...] = ()


def is_finished(plan: Plan, out: Path) -> bool:
    """Whether `out` holds this very video already.

    Raises:
        InputError: `out`, or what is left of an unfinished generation of it, belongs to another request.
    """
    if out.exists():
        try:
            fingerprint = json.loads(_sidecar(out).read_text())["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{out} exists and was not generated here: give another --out, or remove it") from None
        if fingerprint != plan.fingerprint:
            raise InputError(
                f"{out} was generated from another request (see {_sidecar(out)}) or with other weights: "
                "give another --out, or remove it"
            )
        return True
    _resume(plan, _folder(out))
    return False


def generate_video(
    trained: TrainedRun,
    out: Path,
    *,
    prompts: Sequence[str] = (),
    image: Path | np.ndarray | None = None,
    video: Path | None = None,
    seconds: float = 5.0,
    seed: int = 0,
    least: int = 256,
    stopping: threading.Event | None = None,
    say: Say = print,
    timing: Path | None = None,
) -> GenerationResult:
    """Writes one video: `request.Request` says what the arguments mean, `write_video` the rest.

    Raises:
        InputError: the request cannot be used, or `out` belongs to another one.
    """
    request = Request(prompts=tuple(prompts), image=image, video=video, seconds=seconds, seed=seed, least=least)
    plan = make_plan(trained.run, trained.step, request)
    load = functools.partial(Rollout.of, trained)
    return write_video(trained.run, load, plan, out, stopping=stopping, say=say, timing=timing)


def write_video(
    run: Run,
    load: Callable[[], Rollout],
    plan: Plan,
    out: Path,
    *,
    stopping: threading.Event | None = None,
    say: Say = print,
    timing: Path | None = None,
) -> GenerationResult:
    """Writes the video of a plan to `out`; the same call after a stop or a kill goes on and ends in the same bytes.

    Args:
        run: what the plan was made for.
        load: gives the weights that the plan names; not called for a video that is finished.
        plan: see `request.make_plan`.
        out: the mp4.
        stopping: looked at after each segment; when set, what exists is joined into `<stem>.partial.mp4`, together with
            the frames that the next segment may still change.
        say: receives one line at a time.
        timing: JSON file for seconds and memory per segment.

    Returns:
        what was done.

    Raises:
        InputError: `out` belongs to another request.
    """
    if is_finished(plan, out):
        say(f"{out}: finished already, {plan.frames} frames")
        _clean(out)
        return GenerationResult(path=out, frames=plan.frames, finished=True)
    folder = _folder(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): give another --out") from error
    rollout = load()
    state = _resume(plan, folder)
    if state is None:
        state = _begin(run, rollout, plan, folder)
    elif int(state.segment):
        say(f"{out}: going on after segment {int(state.segment)} of {plan.segments}")

    done = int(state.segment)
    seconds: list[float] = []
    memory: list[float | None] = []
    progress = Progress(done, plan.segments, say)
    clip = _clip_from(run, plan, done)
    while done < plan.segments and not (stopping is not None and stopping.is_set()):
        started = time.monotonic()
        first, decoded = _final(plan, state), int(state.frames)
        if done < plan.given:
            pixels, latents = next(clip)
            _, state = rollout.give(state, latents)
        else:
            pixels, state = rollout.generate(state, plan.prompt(done), plan.negative)
            if done + 1 == plan.segments:
                pixels = np.concatenate([pixels, rollout.finish(state)])
            pixels = pixels[first - decoded :]  # a clip's own frames stay as they are
        done += 1
        _write(plan, _part(folder, done), pixels, first)
        _save(plan, folder, state)
        seconds.append(time.monotonic() - started)
        memory.append(resident_mb())
        if len(seconds) == 1:
            progress.restart(done)
        progress.update(done, "segments")

    finished, frames = done == plan.segments, _final(plan, state)
    path = out if finished else _partial(out)
    parts = [part for number in range(done + 1) if (part := _part(folder, number)).is_file()]
    if finished:
        write_json(_sidecar(out), _description(plan))
    else:
        rest = rollout.finish(state)[frames - int(state.frames) :]
        parts += _write(plan, folder / "part_rest.mp4", rest, frames)
        frames = min(frames + len(rest), plan.frames)
    join_parts(parts, path, plan.fps, frames)
    if finished:
        _clean(out)
        say(f"{out}: {frames} frames, {frames / plan.fps:g} s")
    else:
        say(f"{path}: stopped after {frames} of {plan.frames} frames; the same command goes on")
    if timing is not None:
        write_json(timing, {"seconds_per_segment": seconds, "rss_mb": memory})
    return GenerationResult(
        path=path, frames=frames, finished=finished, seconds_per_segment=tuple(seconds), rss_mb=tuple(memory)
    )


def _begin(run: Run, rollout: Rollout, plan: Plan, folder: Path) -> GenerationState:
    """Writes the first frame as part 0 and the state before the first segment."""
    frame, state = rollout.start(plan.prompt(0), plan.reference, plan.seed, plan.segments)
    if not plan.segments:
        frame = np.concatenate([frame, rollout.finish(state)])
    if plan.clip is not None:
        frame = given.first_pixels(run, plan.clip)
    _write(plan, _part(folder, 0), frame, 0)
    _save(plan, folder, state)
    return state


def _resume(plan: Plan, folder: Path) -> GenerationState | None:
    """The newest state in the folder, if there is one."""
    path = folder / "state.safetensors"
    if not path.is_file():
        return None
    state, metadata = load_state(path)
    if metadata["fingerprint"] != plan.fingerprint:
        raise InputError(
            f"{folder} holds an unfinished video of another request or of other weights: "
            "give another --out, or remove that folder"
        )
    return state


def _save(plan: Plan, folder: Path, state: GenerationState) -> None:
    metadata = {"fingerprint": plan.fingerprint, "segment": int(state.segment), "frames": _final(plan, state)}
    save_state(folder / "state.safetensors", state, metadata)


def _final(plan: Plan, state: GenerationState) -> int:
    """Frames of the video that no later segment changes: what the codec has made final, and all that a clip gave."""
    segment = int(state.segment)
    if segment == plan.segments:
        return plan.frames
    own = 0 if plan.clip is None else 1 + min(segment, plan.given) * plan.segment_frames
    return min(max(int(state.frames), own), plan.frames)


def _write(plan: Plan, path: Path, pixels: np.ndarray, first: int) -> list[Path]:
    """Writes the frames from number `first` on, cut at the end of the video; a part without frames is none."""
    pixels = enlarge(pixels[: plan.frames - first], plan.least)
    if not len(pixels):
        return []
    write_part(path, pixels, fps=plan.fps, first_frame=first)
    return [path]


def _clip_from(run: Run, plan: Plan, done: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The given segments that are still to do; those before are encoded again, since they are the encoder's past."""
    if plan.clip is None or done >= plan.given:
        return
    segments = given.given_segments(run, plan.clip, plan.segment_frames, plan.given)
    for number, segment in enumerate(segments):
        if number >= done:
            yield segment


def _description(plan: Plan) -> dict[str, Any]:
    return {
        "fingerprint": plan.fingerprint,
        "fps": plan.fps,
        "frames": plan.frames,
        "given_segments": plan.given,
        "prompts": list(plan.prompts),
        "sampling": config.to_dict(plan.sampling),
        "seed": plan.seed,
        "weights_step": plan.step,
    }


def _clean(out: Path) -> None:
    """Removes what only an unfinished video needs; files of others stay."""
    folder = _folder(out)
    _partial(out).unlink(missing_ok=True)
    if folder.is_dir():
        for path in (*folder.glob("part_*.mp4*"), *folder.glob("state.safetensors*")):
            path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _folder(out: Path) -> Path:
    return out.with_name(out.name + ".parts")


def _part(folder: Path, number: int) -> Path:
    return folder / f"part_{number:06d}.mp4"


def _sidecar(out: Path) -> Path:
    return out.with_name(out.name + ".json")


def _partial(out: Path) -> Path:
    return out.with_name(out.stem + ".partial.mp4")
