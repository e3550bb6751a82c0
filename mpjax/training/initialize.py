"""Starting from earlier weights: what matches by name is taken, what is new stays fresh and is listed."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from mpjax.errors import InputError
from mpjax.interop.stored_array import place
from mpjax.training.state import TrainState
from mpjax.training.trainable import parameter_path
from mpjax.weights import stored_weights


def with_weights(state: TrainState, run: Path, say: Callable[[str], None] = print) -> TrainState:
    """Replaces parameters (and the EMA) by the EMA weights of another run, or by those of a PyTorch checkpoint.

    They go from the files straight into the devices that hold the parameter, an array at a time.

    Raises:
        InputError: a parameter of the same name has another shape, or nothing matches at all.
    """
    stored, words = stored_weights(run)
    known = {parameter_path(path): leaf for path, leaf in jax.tree.leaves_with_path(stored)}
    fresh: list[str] = []

    def pick(path: tuple, leaf: jax.Array) -> jax.Array:
        name = parameter_path(path)
        if name not in known:
            fresh.append(name)
            return leaf
        value = known.pop(name)
        if value.shape != leaf.shape:
            raise InputError(
                f"{run}: {name} has shape {value.shape}, this model needs {leaf.shape}: use the same widths"
            )
        return place(value, leaf)

    params = jax.tree.map_with_path(pick, state.params)
    if len(fresh) == len(jax.tree.leaves(params)):
        raise InputError(f"{run}: none of its parameters occurs in this model: give a run of the same network")
    say(words)
    if fresh:
        say(f"{len(fresh)} new parameters start fresh: {', '.join(fresh)}")
    if known:
        say(f"{len(known)} parameters of {run} are not in this model: {', '.join(known)}")
    return state.replace(params=params, ema=jax.tree.map(jnp.copy, params))
