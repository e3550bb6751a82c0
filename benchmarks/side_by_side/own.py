"""Cases without a rival's network: updates under each forcing, the length of a video, and what reads data."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import data_loading, memory_scaling
from benchmarks.side_by_side.race import ROOT, own_python
from benchmarks.side_by_side.request import ROUNDS, SEGMENTS, Request
from mpjax import experiment
from mpjax.diffusion.forcing import (
    AnyForcing,
    Direct,
    Echo,
    ErrorRecycling,
    Helios,
    HistoryNoise,
    Resampling,
    Residual,
    Student,
    Teacher,
)
from mpjax.errors import InputError
from mpjax.evaluation.step_time import paired_step_times, with_forcing
from mpjax.experiment import Experiment
from mpjax.weights import read_run

Say = Callable[[str], None]

TRAINED = "configs/drift_tiny.py:direct"
READ = "configs/framepack_f1_13b.py"
PROMPT = "a ball bounces"

# What is timed, and against what. Student forcing is also what Direct Forcing saves: five evaluations a segment.
PAIRS: tuple[tuple[AnyForcing, AnyForcing], ...] = (
    *((Teacher(), forcing) for forcing in (Direct(), HistoryNoise(), Helios(), Residual(), Echo(), ErrorRecycling())),
    *((Teacher(), forcing) for forcing in (Resampling(), Student())),
    (Direct(), Student()),
)


def experiments(request: Request) -> list[tuple[Experiment, Experiment]]:
    """The experiment of the request with the forcings of each of `PAIRS`.

    Raises:
        InputError: the config, or a forcing that it does not go with.
    """
    loaded = experiment.load(request.config or TRAINED, list(request.overrides))
    return [(with_forcing(loaded, reference), with_forcing(loaded, forcing)) for reference, forcing in PAIRS]


def train_step(request: Request, say: Say) -> dict[str, Any]:
    """Updates of the last stage of an experiment under each forcing, in pairs, each forcing with its defaults.

    Returns:
        {config, pairs}: a pair is {forcing, reference} with what `step_time.paired_step_times` returns.
    """
    rows = []
    for (reference, forcing), pair in zip(PAIRS, experiments(request), strict=True):
        times = paired_step_times(*pair, pairs=request.rounds or ROUNDS)
        rows.append({"forcing": forcing.kind, "reference": reference.kind, **times})
        say(f"{forcing.kind} / {reference.kind}: {times['ratio']:.3f}")
    return {"config": request.config or TRAINED, "pairs": rows}


def check_length(request: Request) -> tuple[Path, int]:
    """Run folder, and segments of the video.

    Raises:
        InputError: no weights were named, they are no run folder, or fewer segments than the ones that compile.
    """
    if request.weights is None:
        raise InputError("case length generates: give --weights a run folder")
    read_run(request.weights)
    segments = SEGMENTS if request.segments is None else request.segments
    if segments < memory_scaling.FIRST:
        raise InputError(f"--segments is {segments}: give {memory_scaling.FIRST} or more, the first compile")
    return request.weights, segments


def length(request: Request, say: Say) -> dict[str, Any]:
    """Seconds of every generated segment of one video; see `benchmarks.memory_scaling`.

    Returns:
        {weights, segments, first_segment, summary, seconds}.

    Raises:
        InputError: see `check_length`.
    """
    weights, segments = check_length(request)
    (found,) = memory_scaling.measure([weights], PROMPT, segments).values()
    return {
        "weights": str(weights),
        "segments": segments,
        "first_segment": memory_scaling.FIRST,
        "summary": memory_scaling.summary(found),
        "seconds": found["seconds"],
    }


def check_data(request: Request) -> None:
    """Raises InputError for a config that `benchmarks.data_loading` refuses."""
    data_loading.of_config(request.config or READ, request.overrides)


def data(request: Request, say: Say) -> dict[str, Any]:
    """Latents read a second, by this package and, with a rival that has `webdataset`, by torch's DataLoader.

    Returns:
        what `benchmarks.data_loading` writes.

    Raises:
        InputError: it refused, with its sentence.
    """
    with tempfile.TemporaryDirectory(dir=request.scratch) as folder:
        out = Path(folder) / "data.json"
        command = [*own_python("benchmarks.data_loading"), f"--config={request.config or READ}", f"--out={out}"]
        if request.rival_python:
            command.append(f"--rival={request.rival_python}")
        environment = {**os.environ, "TMPDIR": folder}  # where it writes the records that it reads
        done = subprocess.run(
            [*command, *request.overrides], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise InputError(said[-1].removeprefix("benchmarks.data_loading: "))
        return json.loads(out.read_text())


OWN: dict[str, Callable[[Request, Say], dict[str, Any]]] = {"train_step": train_step, "length": length, "data": data}
