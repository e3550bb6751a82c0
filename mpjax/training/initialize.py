"""Starting from earlier weights: what matches by name is taken, what is new stays fresh and is listed."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from mpjax.errors import InputError
from mpjax.training.state import TrainState
from mpjax.training.trainable import parameter_path
from mpjax.weights import load_ema


def with_weights(state: TrainState, run: Path, say: Callable[[str], None] = print) -> TrainState:
    """Replaces parameters (and the EMA) by the EMA weights of another run.

    Raises:
        InputError: a parameter of the same name has another shape, or nothing matches at all.
    """
    loaded, step = load_ema(run)
    known = {parameter_path(path): leaf for path, leaf in jax.tree.leaves_with_path(loaded)}
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
        return jax.device_put(value.astype(leaf.dtype), leaf.sharding)

    params = jax.tree.map_with_path(pick, state.params)
    if len(fresh) == len(jax.tree.leaves(params)):
        raise InputError(f"{run}: none of its parameters occurs in this model: give a run of the same network")
    say(f"weights of update {step} from {run}")
    if fresh:
        say(f"{len(fresh)} new parameters start fresh: {', '.join(fresh)}")
    if known:
        say(f"{len(known)} parameters of {run} are not in this model: {', '.join(known)}")
    return state.replace(params=params, ema=jax.tree.map(jnp.copy, params))
