"""Starting from earlier weights: what matches by name is taken, what is new stays fresh and is listed.

With `training.lora`, `base_dtype` or `base_quantization`, what no stage trains is the base. It stays in the files that
it comes from, and is read from there whenever the run starts.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from mpjax.errors import InputError
from mpjax.experiment import Training
from mpjax.interop.quantized_arrays import quantized_arrays
from mpjax.interop.stored_array import StoredArray, place, place_tree
from mpjax.models.lora import ENTRY
from mpjax.models.quantization import with_kernels
from mpjax.parameters import merge, parameter_path
from mpjax.training.state import TrainState
from mpjax.weights import base_arrays, stored_weights


def check_weights(state: TrainState, source: Path) -> None:
    """Whether `with_base` and `with_weights` would take them; reads shapes alone.

    Args:
        state: arrays or their shapes.
        source: run folder or PyTorch checkpoint.

    Raises:
        InputError: neither, a parameter of the same name has another shape, nothing matches at all, or some of the base
            is missing.
    """
    base = with_kernels(state.base)
    _matching(merge(state.params, base), source)
    if base is not None:
        base_arrays(base, source)


def with_base(state: TrainState, like: Any, training: Training, source: Path) -> TrainState:
    """The state with its base: frozen weights from files, straight into the devices, and the scales of the adapter.

    Kernels are quantised on the way, from what `base_dtype` makes of them.

    Args:
        state: without a base.
        like: shapes, dtypes and shardings of the base, as `StateFactory.abstract` gives them.
        training: the adapter, if any, and how the base is held.
        source: run folder or PyTorch checkpoint.

    Raises:
        InputError: as `check_weights`.
    """
    assert training.held_in is not None  # else there is no base
    scale = 1.0 if training.lora is None else training.lora.scale
    arrays = base_arrays(with_kernels(like, training.held_in), source, scale)
    if training.base_quantization is not None:
        arrays = quantized_arrays(training.base_quantization, arrays)
    return state.replace(base=place_tree(arrays, like))


def with_weights(state: TrainState, source: Path, say: Callable[[str], None] = print) -> TrainState:
    """Replaces parameters (and the EMA) by the EMA weights of another run, or by those of a PyTorch checkpoint.

    They go from the files straight into the devices that hold the parameter, an array at a time.

    Raises:
        InputError: as `check_weights`.
    """
    base = with_kernels(state.base)
    known, words = _matching(merge(state.params, base), source)
    for path, _ in jax.tree.leaves_with_path(base):
        known.pop(parameter_path(path), None)
    fresh: list[str] = []

    def pick(path: tuple, leaf: jax.Array) -> jax.Array:
        name = parameter_path(path)
        if name in known:
            return place(known.pop(name), leaf)
        if f"/{ENTRY}/" not in name:
            fresh.append(name)
        return leaf

    params = jax.tree.map_with_path(pick, state.params)
    say(words)
    if fresh:
        say(f"{len(fresh)} new parameters start fresh: {', '.join(fresh)}")
    if known:
        say(f"{len(known)} parameters of {source} are not in this model: {', '.join(known)}")
    # Not the same arrays: an update takes the memory of both.
    ema = jax.device_put(params, jax.tree.map(lambda x: x.sharding, state.ema), may_alias=False)
    return state.replace(params=params, ema=ema)


def _matching(params: Any, source: Path) -> tuple[dict[str, StoredArray], str]:
    """The stored arrays by name, and what they are, in words."""
    stored, words = stored_weights(source)
    known = {parameter_path(path): leaf for path, leaf in jax.tree.leaves_with_path(stored)}
    wanted = {parameter_path(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(params)}
    for name in wanted.keys() & known.keys():
        if known[name].shape != wanted[name]:
            raise InputError(
                f"{source}: {name} has shape {known[name].shape}, this model needs {wanted[name]}: use the same widths"
            )
    if not wanted.keys() & known.keys():
        raise InputError(f"{source}: none of its parameters occurs in this model: give a run of the same network")
    return known, words
