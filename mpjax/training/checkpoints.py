"""Checkpoints by Orbax: atomic, asynchronous, the newest `keep` of them.

One step holds three items: `ema` (what generation and `train --init` read), `state` (everything else of the training
state) and `data` (the position in the data, which is a pure function of seed and step).
"""

import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mpjax.errors import InputError
from mpjax.training.state import TrainState
from mpjax.weights import COMPLETE


def _to_plain(state: TrainState) -> dict[str, Any]:
    """The state without the EMA, as a dict of arrays; the key as raw data."""
    return {
        "step": state.step,
        "params": state.params,
        "opt_state": state.opt_state,
        "carry": state.carry,
        "key": _key_data(state.key),
    }


def _key_data(key: jax.Array | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
    if isinstance(key, jax.Array):
        return jax.random.key_data(key)
    data = jax.eval_shape(jax.random.key_data, key)
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=key.sharding)


class Checkpoints:
    """The checkpoints of one run folder; a context manager that waits for pending writes."""

    def __init__(self, folder: Path, keep: int = 2):
        # Orbax counts any folder with a number as a step; one that a crash left incomplete would block later saves.
        for path in folder.glob("[0-9]*"):
            if path.is_dir() and path.name.isdigit() and not (path / COMPLETE).is_file():
                shutil.rmtree(path)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Starts writing the state under its step; returns once the arrays may be overwritten."""
        step = int(state.step)
        items = {
            "ema": ocp.args.StandardSave(state.ema),
            "state": ocp.args.StandardSave(_to_plain(state)),
            "data": ocp.args.JsonSave({"next_batch": step}),
        }
        if not self._manager.save(step, args=ocp.args.Composite(**items)):
            raise InputError(
                f"{self._manager.directory} refused to save update {step}: remove the folders of later steps"
            )

    def restore(self, step: int, target: TrainState) -> TrainState:
        """Reads a step into the shapes, dtypes and shardings of `target` (arrays or `jax.ShapeDtypeStruct`)."""
        plain = _to_plain(target)
        items = {
            "ema": ocp.args.StandardRestore(target.ema),
            "state": ocp.args.StandardRestore(plain),
            "data": ocp.args.JsonRestore(),
        }
        read = self._manager.restore(step, args=ocp.args.Composite(**items))
        state = read["state"]
        if read["data"]["next_batch"] != int(state["step"]):
            raise InputError(f"{self._manager.directory}/{step}: data position and step differ; delete that folder")
        key = jax.random.wrap_key_data(state.pop("key"))
        return TrainState(ema=read["ema"], key=key, **state)

    def wait(self) -> None:
        """Blocks until pending writes are on disk."""
        self._manager.wait_until_finished()
