"""`--check_numerics`: which array or module was the first that was not finite."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mpjax.data.batch import Batch
from mpjax.parallel.host_memory import brought_back
from mpjax.training.state import TrainState

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def bad_arrays(tree: Any) -> dict[str, int]:
    """Path → how many values are not finite, of the arrays that hold any, in the order of the tree."""
    leaves = [(path, x) for path, x in jax.tree.leaves_with_path(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    counts = [int(n) for n in jax.device_get(not_finite([x for _, x in leaves]))]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return {name: n for name, n in zip(names, counts, strict=True) if n}


@jax.jit
def not_finite(leaves: list[jax.Array]) -> list[jax.Array]:
    """How many values of each array are not finite."""
    return [jnp.sum(~jnp.isfinite(brought_back(x))) for x in leaves]


def _finite(tree: Any) -> jax.Array:
    arrays = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in arrays]).all() if arrays else jnp.array(True)


def explain(make_step: Callable[[optax.GradientTransformation], Step], state: TrainState, batch: Batch) -> str:
    """Makes an update again, watched, and says where it first ceased to be finite; nothing is donated.

    Args:
        make_step: the train step for a given optimizer.
        state: before the update.
        batch: its batch.

    Returns:
        The end of a sentence: the first array of batch, parameters, optimizer or carry that is not finite; else the
        innermost module, the first in order of execution, whose inputs are finite and whose output is not; else the
        arrays whose gradient is not.
    """
    for name, tree in (
        ("batch", batch),
        ("params", state.params),
        ("opt_state", state.opt_state),
        ("carry", state.carry),
    ):
        if bad := bad_arrays(tree):
            first = next(iter(bad))
            return f"{name}/{first} holds {bad[first]} values that are not finite"

    calls: list[str] = []
    guilty: set[int] = set()

    def note(number: Any, before: Any, after: Any) -> None:
        if before and not after:
            guilty.add(int(number))

    def watch(run: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        out = run(*args, **kwargs)
        if context.method_name != "setup":
            # Numbered when they return: what runs inside a module comes before it.
            method = "" if context.method_name == "__call__" else f".{context.method_name}"
            calls.append("/".join(context.module.path) + method)
            jax.debug.callback(note, len(calls) - 1, _finite((args, kwargs)), _finite(out))
        return out

    # Without an optimizer the parameters receive the bare gradients.
    bare = state.replace(opt_state=optax.identity().init(None), faults=None)
    with nn.intercept_methods(watch):
        after, metrics = jax.block_until_ready(jax.jit(make_step(optax.identity()))(bare, batch))
    jax.effects_barrier()
    bad = bad_arrays(after.params)  # by every process, though one alone may hear of a module
    if guilty:
        return f"module {calls[min(guilty)]} makes values that are not finite of finite inputs"
    if bad:
        total = len(jax.tree.leaves(after.params))
        return (
            f"every module is finite, but not the gradient of params/{next(iter(bad))} ({len(bad)} of {total} arrays)"
        )
    if not jnp.isfinite(metrics["loss"]):
        return "every module is finite, but not the loss"
    return "arrays, modules and gradients are finite when the update is made again"
