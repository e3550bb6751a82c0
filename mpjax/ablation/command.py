"""The verb `ablate`: every arm with every seed, trained, measured, compared."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

from mpjax.ablation.cells import Cell, check_shapes, make_cell
from mpjax.ablation.design import Ablation, Arm
from mpjax.ablation.measure import run_cell, stored_result
from mpjax.ablation.results import write_results
from mpjax.ablation.schedule import Task, work
from mpjax.compilation import keep_compiled
from mpjax.errors import InputError
from mpjax.evaluation.step_time import paired_step_times
from mpjax.experiment import fingerprint
from mpjax.whole_files import write_json

Say = Callable[[str], None]


def ablate(
    ablation: Ablation, run: Path, out: Path, *, share: tuple[int, int] = (0, 1), command: str = "", say: Say = print
) -> bool:
    """Runs the cells of a share that are not there yet; writes the results once all cells of all shares are.

    Args:
        ablation: what to run.
        run: folder of the run folders ARM/seed_N, of a step time for each arm, and of compiled programs.
        out: folder for tables, figures and claims.
        share: (i, n): every n-th task from the i-th on; a process for each i shares the work.
        command: kept with each cell.
        say: receives one line of progress at a time.

    Returns:
        Whether everything was there and the results were written.

    Raises:
        InputError: a mistake in any arm, or a folder of another experiment; before anything is computed.
        KeyboardInterrupt: a stop was requested.
    """
    # Seed by seed: a first row of every arm comes early.
    cells = [make_cell(ablation, arm, seed) for seed in ablation.seeds for arm in ablation.arms]
    _check_folders(ablation, cells, run)
    missing = [cell for cell in cells if _result(ablation, cell, run) is None]
    untimed = [arm for arm in ablation.arms if _timed(ablation, arm) and _step_time(ablation, arm, run) is None]
    if missing:
        say(f"{len(missing)} of {len(cells)} cells to make; checking their networks")
        check_shapes(missing)
    if missing or untimed:
        keep_compiled(run / "compiled")  # seeds of an arm share its programs
        work(_tasks(ablation, cells, run, command, say), share, say)
    times = {arm.name: _step_time(ablation, arm, run) for arm in ablation.arms if _timed(ablation, arm)}
    results = [_result(ablation, cell, run) for cell in cells]
    left = [cell.name for cell, result in zip(cells, results, strict=True) if result is None]
    left += [f"step time of {name}" for name, time in times.items() if time is None]
    if left:
        say(f"{len(left)} cells and timings of other shares are not there yet: the last one to finish writes {out}")
        return False
    found = [result for result in results if result is not None]
    measured = {name: time for name, time in times.items() if time is not None}
    for line in write_results(ablation, found, measured, out):
        say(line)
    return True


def _tasks(ablation: Ablation, cells: list[Cell], run: Path, command: str, say: Say) -> list[Task]:
    """Step times and cells, each after what it needs; what others start from comes first."""
    tasks = []
    for arm in ablation.arms:
        if _timed(ablation, arm):
            time = functools.partial(_measure_step_time, ablation, arm, run)
            done = functools.partial(_is_there, _step_time, ablation, arm, run)
            tasks.append(Task(name=f"step time of {arm.name}", needs=(), done=done, run=time))
    for cell in cells:
        needs = [] if cell.init is None else [cell.init.name]
        if _scales(ablation, cell.arm):
            needs.append(f"step time of {cell.arm.name}")
        make = functools.partial(_run, ablation, cell, run, command, say)
        done = functools.partial(_is_there, _result, ablation, cell, run)
        tasks.append(Task(name=cell.name, needs=tuple(needs), done=done, run=make))
    return sorted(tasks, key=lambda task: not any(task.name in other.needs for other in tasks))


def _is_there(read: Callable, *arguments: object) -> bool:
    return read(*arguments) is not None


def _timed(ablation: Ablation, arm: Arm) -> bool:
    """The reference is 1 by definition; what others start from is no rival of it."""
    return bool(ablation.timing_pairs) and arm.name != ablation.reference and not ablation.is_base(arm)


def _scales(ablation: Ablation, arm: Arm) -> bool:
    return ablation.budget == "wall_clock" and _timed(ablation, arm)


def _budgeted(ablation: Ablation, cell: Cell, run: Path) -> Cell | None:
    """The cell with its stages scaled as the budget says; None while its step time is not there."""
    if not _scales(ablation, cell.arm):
        return cell
    time = _step_time(ablation, cell.arm, run)
    return None if time is None else make_cell(ablation, cell.arm, cell.seed, time["ratio"])


def _result(ablation: Ablation, cell: Cell, run: Path) -> dict | None:
    budgeted = _budgeted(ablation, cell, run)
    return None if budgeted is None else stored_result(budgeted, run)


def _run(ablation: Ablation, cell: Cell, run: Path, command: str, say: Say) -> None:
    budgeted = _budgeted(ablation, cell, run)
    assert budgeted is not None  # the schedule puts the step time first
    run_cell(budgeted, run, command, say)


def _step_time_path(arm: Arm, run: Path) -> Path:
    return run / arm.name / "step_time.json"


def _pair(ablation: Ablation, arm: Arm) -> tuple[Cell, Cell]:
    reference = ablation.arm(ablation.reference)
    seed = ablation.seeds[0]
    return make_cell(ablation, reference, seed), make_cell(ablation, arm, seed)


def _step_time(ablation: Ablation, arm: Arm, run: Path) -> dict | None:
    """The measured step time of an arm over the reference; measured once, so that a budget by it can be repeated."""
    path = _step_time_path(arm, run)
    if not path.is_file():
        return None
    stored = json.loads(path.read_text())
    marks = [fingerprint(cell.experiment) for cell in _pair(ablation, arm)]
    return stored if stored["fingerprints"] == marks else None


def _measure_step_time(ablation: Ablation, arm: Arm, run: Path) -> None:
    reference, other = _pair(ablation, arm)
    times = paired_step_times(reference.experiment, other.experiment, pairs=ablation.timing_pairs)
    marks = [fingerprint(cell.experiment) for cell in (reference, other)]
    write_json(_step_time_path(arm, run), {**times, "fingerprints": marks})


def _check_folders(ablation: Ablation, cells: list[Cell], run: Path) -> None:
    """A folder of another experiment would be refused in the middle of the work; this finds it at the start."""
    if run.exists() and not run.is_dir():
        raise InputError(f"{run} is a file: give --run a folder")
    for cell in cells:
        path = cell.folder(run) / "run.json"
        if path.is_file() and cell.init is not None and not (cell.init.folder(run) / "run.json").is_file():
            raise InputError(
                f"{path.parent} started from {cell.init.folder(run)}, which is gone: remove it too, or give another "
                "--run"
            )
        budgeted = _budgeted(ablation, cell, run)
        if path.is_file() and budgeted is not None:
            mark = json.loads(path.read_text()).get("fingerprint")
            if mark != fingerprint(budgeted.experiment):
                raise InputError(f"{path.parent} belongs to another experiment: give another --run, or remove it")
