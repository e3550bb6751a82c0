"""Checkpoints by Orbax: atomic and asynchronous; `training.retention` says which of them stay.

One step holds three items: `ema` (what generation and `train --init` read), `state` (everything else of the training
state) and `data` (the position in the data, which is a pure function of seed and step, and checksums of the others).

A step is written by all processes and read by any number of them, on any mesh. One that cannot be read, or whose
checksums are not those of the arrays, is set aside as `damaged-N` once an earlier one was read in its place.
"""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from mpjax.errors import InputError
from mpjax.parallel.host_memory import HOST
from mpjax.parallel.processes import agree, barrier, is_first
from mpjax.training.checksums import checksums
from mpjax.training.retention import Retention
from mpjax.training.state import TrainState
from mpjax.weights import COMPLETE

Say = Callable[[str], None]


class Damaged(ValueError):
    """A checkpoint that was read does not hold what was saved."""


def _to_plain(state: TrainState) -> dict[str, Any]:
    """The state without the EMA, as a dict of arrays; the key as raw data."""
    plain = {
        "step": state.step,
        "params": state.params,
        "opt_state": state.opt_state,
        "carry": state.carry,
        "key": _key_data(state.key),
    }
    return plain if state.faults is None else {**plain, "faults": state.faults}


def _key_data(key: jax.Array | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
    if isinstance(key, jax.Array):
        return jax.random.key_data(key)
    data = jax.eval_shape(jax.random.key_data, key)
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=key.sharding)


class Checkpoints:
    """The checkpoints of one run folder, which all processes see; a context manager that waits for pending writes."""

    def __init__(self, folder: Path, retention: Retention, say: Say = print):
        """`retention` is the object that the run's `Mirror` has, too, if there is one."""
        self._folder, self._say = folder.absolute(), say
        if is_first():
            # Orbax counts any folder with a number as a step; one that a crash left incomplete would block later saves.
            for path in folder.glob("[0-9]*"):
                if path.is_dir() and path.name.isdigit() and not (path / COMPLETE).is_file():
                    shutil.rmtree(path)
        barrier("opening the checkpoints")
        options = ocp.CheckpointManagerOptions(preservation_policy=retention, create=True, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Every complete step, in rising order.

        Opened or reloaded, all processes list what the folder holds. After a save the first one may list one step more,
        older than what stays by its number: the one that the mirror is sending (`Retention.held`).
        """
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState) -> None:
        """Starts writing the state under its step; returns once the arrays may be overwritten."""
        step, plain = int(state.step), _to_plain(state)
        sums = {"ema": checksums(state.ema), "state": checksums(plain)}
        items = {
            "ema": ocp.args.StandardSave(state.ema),
            "state": ocp.args.StandardSave(plain),
            "data": ocp.args.JsonSave(
                {"next_batch": step, "sums": {name: np.asarray(x).tolist() for name, x in sums.items()}}
            ),
        }
        if not self._manager.save(step, args=ocp.args.Composite(**items)):
            raise InputError(
                f"{self._manager.directory} refused to save update {step}: remove the folders of later steps"
            )
        if any(x.sharding.memory_kind == HOST for x in jax.tree.leaves(state)):
            # Orbax writes these from where they are, of which the next update makes its own.
            self.wait()

    def restore(self, step: int, target: TrainState) -> TrainState:
        """Reads a step into the shapes, dtypes and shardings of `target` (arrays or `jax.ShapeDtypeStruct`).

        All processes return or all raise, so that none waits for one that could not read its part.

        Raises:
            Damaged: the arrays are not those that were saved, or not of the step; or another process cannot read it.
            Exception: whatever Orbax raises of files that it cannot read.
        """
        failed: Exception | None = None
        try:
            ema, state, data = self._read(step, target)
        except Exception as error:  # a damaged file may raise anything
            failed = error
        if not agree(failed is None):  # before the checksums, which all compute together
            raise failed or Damaged("another process cannot read it")
        # The first runs saved no sums, or others.
        sums = {name: np.asarray(checksums(tree)).tolist() for name, tree in (("ema", ema), ("state", state))}
        wrong = [name for name, values in sums.items() if data.get("sums", sums)[name] != values]
        if not agree(not wrong):
            raise Damaged(f"the arrays in {' and '.join(wrong) or 'it'} are not those that were saved")
        key = jax.random.wrap_key_data(state.pop("key"))
        return TrainState(ema=ema, key=key, **state)

    def _read(self, step: int, target: TrainState) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """The items `ema`, `state` and `data` of a step, without a wait for other processes."""
        folder = self._folder / str(step)
        # The handlers themselves: the manager's `restore` ends in a barrier, where others would wait for a process
        # that could not read its part.
        with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
            ema = handler.restore(folder / "ema", args=ocp.args.StandardRestore(target.ema))
            state = handler.restore(folder / "state", args=ocp.args.StandardRestore(_to_plain(target)))
        data = ocp.JsonCheckpointHandler().restore(folder / "data", args=ocp.args.JsonRestore())
        if data["next_batch"] != int(state["step"]) or data["next_batch"] != step:
            raise Damaged("data position and step differ")
        return ema, state, data

    def restore_newest(
        self, target_at: Callable[[int], TrainState], fetch: Callable[[int, int], int | None] | None = None
    ) -> TrainState | None:
        """The newest step that every process can read; None: nothing was saved. Later ones are set aside.

        Args:
            target_at: step → what to restore into, as for `restore`.
            fetch: of the first process, as `Mirror.fetch_newest`: it is asked for a step that cannot be read before an
                older one is taken.

        Raises:
            InputError: there are steps, but none can be read; they stay where they are.
        """
        damaged: dict[int, str] = {}
        steps, fetched = self.steps(), None
        while steps:
            step = steps.pop()
            try:
                state = self.restore(step, target_at(step))
            except Exception as error:  # a damaged file may raise anything
                problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            else:
                self._set_aside(damaged)
                return state
            self._say(f"warning: checkpoint {step} cannot be read: {problem}")
            damaged[step] = problem
            older = max(steps, default=-1)
            got = None if fetch is None else fetch(step - (step == fetched), older)
            barrier("fetching a checkpoint", patient=True)
            fetched = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if got is None else got)))
            if fetched > older:
                damaged.pop(fetched, None)  # `fetch` set it aside
                steps.append(fetched)
                self._manager.reload()
        if damaged:
            newest = max(damaged)
            raise InputError(
                f"{self._folder}: no checkpoint can be read; {newest}: {damaged[newest]}: copy one from elsewhere"
            )
        return None

    def _set_aside(self, damaged: dict[int, str]) -> None:
        for step, problem in damaged.items():
            self._say(f"warning: checkpoint {step} is damaged and set aside as damaged-{step}: {problem}")
            if is_first():
                aside = self._folder / f"damaged-{step}"
                shutil.rmtree(aside, ignore_errors=True)
                (self._folder / str(step)).rename(aside)
        if damaged:
            barrier("setting damaged checkpoints aside")
            self._manager.reload()

    def wait(self) -> None:
        """Blocks until pending writes are on disk."""
        self._manager.wait_until_finished()
