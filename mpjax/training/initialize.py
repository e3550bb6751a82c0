"""Starting from earlier weights: what matches by name is taken, what is new stays fresh and is listed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mpjax.errors import InputError
from mpjax.interop.stored_array import StoredArray, place
from mpjax.parameters import parameter_path
from mpjax.training.state import TrainState
from mpjax.weights import stored_weights


def check_weights(params: Any, source: Path) -> None:
    """Whether `with_weights` would take them; reads shapes alone.

    Args:
        params: parameters or their shapes.
        source: run folder or PyTorch checkpoint.

    Raises:
        InputError: neither, a parameter of the same name has another shape, or nothing matches at all.
    """
    _matching(params, source)


def with_weights(state: TrainState, source: Path, say: Callable[[str], None] = print) -> TrainState:
    """Replaces parameters (and the EMA) by the EMA weights of another run, or by those of a PyTorch checkpoint.

    They go from the files straight into the devices that hold the parameter, an array at a time.

    Raises:
        InputError: as `check_weights`.
    """
    known, words = _matching(state.params, source)
    fresh: list[str] = []

    def pick(path: tuple, leaf: jax.Array) -> jax.Array:
        name = parameter_path(path)
        if name in known:
            return place(known.pop(name), leaf)
        fresh.append(name)
        return leaf

    params = jax.tree.map_with_path(pick, state.params)
    say(words)
    if fresh:
        say(f"{len(fresh)} new parameters start fresh: {', '.join(fresh)}")
    if known:
        say(f"{len(known)} parameters of {source} are not in this model: {', '.join(known)}")
    return state.replace(params=params, ema=jax.tree.map(jnp.copy, params))


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
