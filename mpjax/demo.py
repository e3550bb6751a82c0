"""The demo: train on RecallWorld, generate a minute, measure, and write report.html and report.json.

Recall comes first and is a result; drift is short and labelled an illustration. Every part is kept on disk when it is
done, so the same command goes on where it stopped.
"""

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mpjax import config, drawing, experiment, provenance
from mpjax.data.filmstrip import png, stack
from mpjax.data.recallworld.world import World
from mpjax.diffusion.forcing import Direct
from mpjax.errors import InputError
from mpjax.evaluation import report_figures
from mpjax.evaluation.drift import evaluate_drift
from mpjax.evaluation.recall import evaluate_recall
from mpjax.evaluation.report import write_report
from mpjax.evaluation.step_time import step_time_ratio
from mpjax.evaluation.strips import named_strips
from mpjax.experiment import Experiment, RecallWorldData
from mpjax.generation.stream import generate_video
from mpjax.models.memorypack import Denoiser
from mpjax.training.loop import train
from mpjax.weights import latest_step, load_run
from mpjax.whole_files import write_file

ARMS = ("memorypack", "framepack")
FORCINGS = ("teacher", "direct")
GAPS = (0, 1, 2, 3, 4, 6, 8)  # hidden segments; training goes up to 4
CLIPS_PER_GAP = 256
EVALUATION_SEED = 1
DRIFT_SEGMENTS = 24
DRIFT_CLIPS = 64
VIDEO_SECONDS = 60.0
# What the minute shows: the toy comes back after 4 hidden segments, stays, leaves again and comes back after 8.
SHORT, LONG, STAY = 4, 8, 2

Say = Callable[[str], None]


def demo(folder: Path, say: Say = print) -> Path:
    """Runs every part that `folder` does not hold yet and returns the path of the report."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give --run a folder")
    folder.mkdir(parents=True, exist_ok=True)
    parts = _Parts(folder, say)
    recall = {arm: parts.run(f"recall_{arm}", functools.partial(_recall, folder, arm, say)) for arm in ARMS}
    report = _write(folder, parts, recall)
    say(f"recall: {_recall_line(recall)}")
    minute = parts.run("minute", functools.partial(_minute, folder, say))
    drift = {"base": parts.run("drift_base", functools.partial(_drift_base, folder, say))}
    for forcing in FORCINGS:
        drift[forcing] = parts.run(f"drift_{forcing}", functools.partial(_drift, folder, forcing, say))
    cost = parts.run("step_time", functools.partial(_step_time, say))
    report = _write(folder, parts, recall, minute, drift, cost)
    say(f"report: {report}")
    return report


class _Parts:
    """Finished parts of the demo, one JSON file each, with the seconds they took."""

    def __init__(self, folder: Path, say: Say):
        self._folder, self._say = folder / "parts", say
        self._folder.mkdir(exist_ok=True)
        self.seconds: dict[str, float] = {}
        self.commits: list[str | None] = []

    def run(self, name: str, make: Callable[[], dict]) -> dict:
        """The result of a part: made now, or read if these settings have made it before.

        Raises:
            InputError: other settings made it.
        """
        path = self._folder / f"{name}.json"
        if path.is_file():
            stored = json.loads(path.read_text())
            if stored["settings"] != _settings():
                raise InputError(
                    f"{path} was made with other settings: remove {self._folder.parent}, or give another --run"
                )
        else:
            self._say(f"== {name}")
            start = time.monotonic()
            result = make()
            seconds = round(time.monotonic() - start, 1)
            stored = {"settings": _settings(), "commit": provenance.commit(), "seconds": seconds, "result": result}
            write_file(path, json.dumps(stored))
        self.seconds[name] = stored["seconds"]
        if stored["commit"] not in self.commits:
            self.commits.append(stored["commit"])
        return stored["result"]


@functools.cache
def _settings() -> str:
    """A hash of all that decides the numbers of the demo."""
    experiments = [_experiment("recall_tiny.py", arm) for arm in ARMS]
    experiments += [_experiment("drift_tiny.py", name) for name in ("base", *FORCINGS)]
    constants = (GAPS, CLIPS_PER_GAP, EVALUATION_SEED, DRIFT_SEGMENTS, DRIFT_CLIPS, VIDEO_SECONDS, SHORT, LONG, STAY)
    text = json.dumps([[experiment.fingerprint(e) for e in experiments], constants])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _experiment(name: str, argument: str) -> Experiment:
    return experiment.load(f"{config.find(name)}:{argument}")


def _world(loaded: Experiment) -> World:
    assert isinstance(loaded.data, RecallWorldData)
    return loaded.data.world


def _trained(folder: Path, run: str, loaded: Experiment, say: Say, init: Path | None = None) -> tuple[dict, dict]:
    """Trains a run (or finds it finished) and returns its EMA weights and its numbers for the report."""
    path = folder / run
    try:
        first = latest_step(path)
    except InputError:
        first = 0
    start = time.monotonic()
    total = train(loaded, path, init=init, say=lambda line: say(f"[{run}] {line}"))
    seconds = time.monotonic() - start
    params = load_run(path).params
    lines = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    curves = {
        name: [[line["step"], line[key]] for line in lines if key in line]
        for name, key in (("loss", "train/loss"), ("held_out", "validation/loss"))
    }
    size = int(sum(x.size for x in jax.tree.leaves(params)))
    # What an earlier, interrupted call did is not in these seconds.
    ms = 1e3 * seconds / (total - first) if total > first else None
    return params, {"parameters": size, "updates": total, "ms_per_update_with_compile": ms, **curves}


def _recall(folder: Path, arm: str, say: Say) -> dict:
    loaded = _experiment("recall_tiny.py", arm)
    params, training = _trained(folder, arm, loaded, say)
    result = evaluate_recall(
        Denoiser(loaded.model, loaded.guidance),
        loaded.sampler,
        params,
        _world(loaded),
        gaps=GAPS,
        clips_per_gap=CLIPS_PER_GAP,
        seed=EVALUATION_SEED,
        classifier_free=loaded.classifier_free,
    )
    arrays: dict[str, Any] = {f"truth_{gap}": video for gap, video in result.truth.items()}
    arrays |= {f"generated_{gap}": video for gap, video in result.generated.items()}
    np.savez(folder / "parts" / f"recall_{arm}.npz", **arrays)
    report = {**result.report, "long_term_memory": loaded.model.memory is not None}
    return {"report": report, "training": training}


def _recall_report(report: dict) -> dict:
    """Without the leak test where a model may well remember: there it would read as a failure."""
    return report | {"leak_test": None} if report["long_term_memory"] else report


def _minute(folder: Path, say: Say) -> dict:
    """A minute from the memory model: the toy leaves and comes back twice."""
    world = _world(_experiment("recall_tiny.py", "memorypack"))
    frames = round(VIDEO_SECONDS * world.fps)
    segments = -(-(frames - 1) // world.segment_frames)
    visit = ["the toy returns"] + ["the toy stays"] * STAY
    schedule = ["a toy enters"] + ["a ball bounces"] * SHORT + visit
    while len(schedule) < segments:
        schedule += ["a ball bounces"] * LONG + visit
    result = generate_video(
        load_run(folder / "memorypack"),
        folder / "minute.mp4",
        prompts=schedule[:segments],
        seconds=VIDEO_SECONDS,
        seed=EVALUATION_SEED,
        say=say,
    )
    return {
        "frames": result.frames,
        "schedule": schedule[:segments],
        "seconds_per_segment": result.seconds_per_segment,
        "rss_mb": result.rss_mb,
    }


def _drift_base(folder: Path, say: Say) -> dict:
    return {"training": _trained(folder, "drift_base", _experiment("drift_tiny.py", "base"), say)[1]}


def _drift(folder: Path, forcing: str, say: Say) -> dict:
    loaded = _experiment("drift_tiny.py", forcing)
    params, training = _trained(folder, f"drift_{forcing}", loaded, say, init=folder / "drift_base")
    result = evaluate_drift(
        Denoiser(loaded.model, loaded.guidance),
        loaded.sampler,
        params,
        _world(loaded),
        segments=DRIFT_SEGMENTS,
        clips=DRIFT_CLIPS,
        seed=EVALUATION_SEED,
        classifier_free=loaded.classifier_free,
    )
    np.savez(folder / "parts" / f"drift_{forcing}.npz", truth=result.truth, generated=result.generated)
    return {"report": result.report, "training": training}


def _step_time(say: Say) -> dict:
    result = step_time_ratio(_experiment("drift_tiny.py", "direct"), Direct())
    say(f"direct / teacher step time {result['ratio']:.3f}, 95 % interval {result['ci95']}")
    return result


def _recall_line(recall: dict) -> str:
    parts = []
    for arm in ARMS:
        far = recall[arm]["report"]["beyond_reach"]
        parts.append(f"{arm} {far['rate']:.2f} [{far['ci95'][0]:.2f}, {far['ci95'][1]:.2f}]")
    return f"beyond reach {', '.join(parts)}, chance {recall[ARMS[0]]['report']['beyond_reach']['chance']:.3f}"


def _pictures(folder: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """Filmstrips from the stored frames: true and generated side by side."""
    pictures, captions = {}, {}
    stored = {path.stem: np.load(path) for path in sorted((folder / "parts").glob("*.npz"))}
    arms = [arm for arm in ARMS if f"recall_{arm}" in stored]
    for gap in (2, 4, 8):
        if not arms:
            break
        truth = stored[f"recall_{arms[0]}"][f"truth_{gap}"]
        rows = {"truth": truth}
        for arm in arms:
            drawn = stored[f"recall_{arm}"][f"generated_{gap}"]
            blank = np.ones((len(truth) - len(drawn), *drawn.shape[1:]), drawn.dtype)
            rows[arm] = np.concatenate([blank, drawn])
        back = len(truth) - _world(_experiment("recall_tiny.py", arms[0])).segment_frames
        hidden = (back - gap * (len(truth) - back), back)
        pictures[f"recall_gap_{gap}"] = png(named_strips(rows, left_out=(hidden[0] + 2, hidden[1] - 2)))
        captions[f"recall_gap_{gap}"] = (
            f"Return after {gap} hidden segments, of which the first and the last two frames are shown; time to the "
            f"right. Below the true video the generated return of {' and of '.join(arms)}, given the truth up to there."
        )
    for forcing in FORCINGS:
        if f"drift_{forcing}" in stored:
            every = 5  # odd: the ball is back after two frames
            rows = {name: stored[f"drift_{forcing}"][name][::every] for name in ("truth", "generated")}
            pictures[f"drift_{forcing}"] = png(named_strips(rows, least=32))
            captions[f"drift_{forcing}"] = f"{forcing.capitalize()} forcing: every {every}th frame."
    return pictures, captions


def _write(
    folder: Path,
    parts: _Parts,
    recall: dict,
    minute: dict | None = None,
    drift: dict | None = None,
    cost: dict | None = None,
) -> Path:
    """Writes the report of the parts that exist."""
    pictures, captions = _pictures(folder)
    report: dict[str, Any] = {
        "command": f"python -m mpjax demo --run={folder}",
        "commit": ", ".join(str(commit) for commit in parts.commits),
        "seeds": {"training": 0, "evaluation": EVALUATION_SEED},
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "seconds": {**_install_seconds(), **parts.seconds},
        "recall": {arm: _recall_report(part["report"]) for arm, part in recall.items()},
        "training": {arm: part["training"] for arm, part in recall.items()},
        "captions": captions,
    }
    if minute is not None:
        report |= {"video": "minute.mp4", "video_schedule": minute["schedule"]}
        count = len(minute["schedule"])
        if len(minute["rss_mb"]) == count:  # the whole minute in one call, else there is nothing to compare
            report |= {
                "seconds_per_segment": minute["seconds_per_segment"],
                "segment_time_ratio_end_over_start": _segment_time_ratio(minute["seconds_per_segment"]),
                "peak_rss_mb": {"quarter": minute["rss_mb"][count // 4], "end": minute["rss_mb"][-1]},
            }
    if drift is not None:
        report |= {
            "drift": {forcing: drift[forcing]["report"] for forcing in FORCINGS},
            "drift_is_illustration": True,
        }
        report["training"] |= {f"drift_{name}": part["training"] for name, part in drift.items()}
    if cost is not None:
        report["step_time_ratio_direct_over_teacher"] = cost
    _overview(folder / "overview.png", report["recall"], pictures)
    return write_report(report, pictures, folder)


def _overview(path: Path, recall: dict, pictures: dict[str, bytes]) -> None:
    """One picture of the result: recall by gap, and below it true and generated returns."""
    panels = [drawing.png(report_figures.recall_figure(recall))]
    panels += [pictures[name] for name in ("recall_gap_2", "recall_gap_4") if name in pictures]
    path.write_bytes(png(stack(panels)))


def _segment_time_ratio(seconds: list[float]) -> dict[str, float]:
    """Median of the last seven segments over that of seven around segment 4, the compiling first one left out."""
    start, end = float(np.median(seconds[1:8])), float(np.median(seconds[-7:]))
    return {"start_seconds": start, "end_seconds": end, "ratio": end / start}


def _install_seconds() -> dict[str, float]:
    text = os.environ.get("MPJAX_INSTALL_SECONDS")
    return {"install": float(text)} if text else {}
