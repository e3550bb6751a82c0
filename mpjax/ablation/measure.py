"""What a cell leaves behind: its training, its numbers, and where they come from, in one JSON file."""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mpjax import provenance
from mpjax.ablation.cells import Cell
from mpjax.ablation.design import DriftEvaluation, RecallEvaluation
from mpjax.data.recallworld.world import World
from mpjax.datasets import open_datasets
from mpjax.evaluation.drift import evaluate_drift
from mpjax.evaluation.recall import evaluate_recall
from mpjax.models.memorypack import Denoiser
from mpjax.models.quantization import with_kernels
from mpjax.training.curriculum import total_steps
from mpjax.training.loop import train
from mpjax.weights import load_run, steps_of
from mpjax.whole_files import write_json

Say = Callable[[str], None]


def result_path(cell: Cell, run: Path) -> Path:
    """The file that a finished cell leaves."""
    return cell.folder(run) / "cell.json"


def stored_result(cell: Cell, run: Path) -> dict | None:
    """The result of a cell, if it was made with these settings."""
    path = result_path(cell, run)
    if not path.is_file():
        return None
    result = json.loads(path.read_text())
    return result if result["fingerprint"] == cell.fingerprint else None


def run_cell(cell: Cell, run: Path, command: str, say: Say) -> None:
    """Trains a cell, or goes on with it, and evaluates it.

    Raises:
        Stopped: a stop was requested while it trained; what was trained is saved.
    """
    folder, trained = cell.folder(run), cell.experiment
    init = None if cell.init is None else cell.init.folder(run)
    first = max(steps_of(folder), default=0)
    start = time.monotonic()
    total = total_steps(trained.training.stages)
    train(trained, folder, init=init, say=lambda line: say(f"[{cell.name}] {line}"))
    seconds = time.monotonic() - start
    params = load_run(folder).params
    result: dict[str, Any] = {
        "arm": cell.arm.name,
        "seed": cell.seed,
        "fingerprint": cell.fingerprint,
        "commit": provenance.commit(),
        "command": command,
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "updates": total,
        "parameters": int(sum(x.size for x in jax.tree.leaves(with_kernels(params)))),
        "memory_bytes": memory_bytes(cell, params),
        # What an earlier, interrupted call did is not in these seconds.
        "seconds_per_update_with_compile": seconds / (total - first) if total > first else None,
        **_last_numbers(folder),
        "recall": {e.name: _recall(cell, params, e, world) for e, world in cell.recall},
        "drift": {e.name: _drift(cell, params, e, world) for e, world in cell.drift},
        "drift_curve": {e.name: _curve(cell, folder, e, world) for e, world in cell.drift if cell.arm.curve},
        "peak_rss_mb_of_process": _peak_rss_mb(),
    }
    write_json(result_path(cell, run), result)


def memory_bytes(cell: Cell, params: dict) -> int:
    """Bytes of ψ of one video."""
    denoiser = Denoiser(cell.experiment.model, cell.experiment.guidance)
    batch = jax.tree.map(lambda x: jnp.asarray(x[:1]), open_datasets(cell.experiment).train[0])
    memory = jax.eval_shape(denoiser.init_memory, params, batch.first_prompts, batch.reference)
    return memory.bytes


def _recall(cell: Cell, params: dict, evaluation: RecallEvaluation, world: World) -> dict:
    trained = cell.experiment
    return evaluate_recall(
        Denoiser(trained.model, trained.guidance),
        trained.sampler,
        params,
        world,
        gaps=evaluation.gaps,
        clips_per_gap=evaluation.clips_per_gap,
        seed=evaluation.seed + cell.seed,
        classifier_free=trained.classifier_free,
        control=evaluation.control,
    ).report


def _drift(cell: Cell, params: dict, evaluation: DriftEvaluation, world: World, *, true_history: bool = True) -> dict:
    trained = cell.experiment
    return evaluate_drift(
        Denoiser(trained.model, trained.guidance),
        trained.sampler,
        params,
        world,
        segments=evaluation.segments,
        given=evaluation.given,
        clips=evaluation.clips,
        seed=evaluation.seed + cell.seed,
        classifier_free=trained.classifier_free,
        true_history=true_history,
    ).report


def _curve(cell: Cell, folder: Path, evaluation: DriftEvaluation, world: World) -> list[dict]:
    """Slope of the RMS error at every kept checkpoint."""
    rows = []
    for step in steps_of(folder):
        report = _drift(cell, load_run(folder, step).params, evaluation, world, true_history=False)
        rows.append({"update": step, "slope": report["error"]["slope"]["per_minute"]})
    return rows


def _last_numbers(folder: Path) -> dict[str, float | None]:
    """The newest of some logged numbers."""
    names = {"held_out_loss": "validation/loss", "forwards_per_update": "train/forwards_per_update"}
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {name: next((line[key] for line in reversed(lines) if key in line), None) for name, key in names.items()}


def _peak_rss_mb() -> float:
    """Of this process so far, earlier cells included."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
