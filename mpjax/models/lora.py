"""LoRA: low-rank updates beside kernels that stay as they are (Hu et al., 2021).

    y = x W + s (x A) B,      A [in, r], B [r, out], s = alpha / r

An adapter is a tree of parameters. Beside the kernel of an adapted `layers.Dense` it has the entry

    lora: {a: [in, r], b: [r, out], scale: []},      float32, with the axis of layers in front where the kernel has one,

and `parameters.merge` puts it into the tree of the network, where `Dense` finds it (*live*: W + s A B never exists).
`fold` adds it to the kernels instead. Several adapters at once are one of the sum of their ranks, [A₁ A₂] and
[w₁ s₁ B₁; w₂ s₂ B₂] (`combine`).
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mpjax.errors import InputError
from mpjax.models.targets import BLOCK_LAYERS, check_pattern, target_kernels

ENTRY = "lora"  # beside `kernel`
BEGINNINGS = ("kaiming", "normal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
    """An adapter to train.

    Attributes:
        targets: regular expression for the whole path of an adapted module (`models.targets`).
        rank: r.
        alpha: the update is scaled by alpha / rank.
        initial: of A: `kaiming`, uniform within ±1/√in, or `normal`, of deviation 1/rank. B begins at zero.
    """

    targets: str = BLOCK_LAYERS
    rank: int = 16
    alpha: float = 16.0
    initial: str = "kaiming"

    def __post_init__(self):
        check_pattern(self.targets)
        if self.rank < 1:
            raise InputError(f"rank is {self.rank}: it must be at least 1")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise InputError(f"alpha is {self.alpha}: it must be above 0")
        if self.initial not in BEGINNINGS:
            raise InputError(f"initial is {self.initial!r}: it must be one of {', '.join(BEGINNINGS)}")

    @property
    def scale(self) -> float:
        """s."""
        return self.alpha / self.rank


def low_rank(x: jax.Array, entry: dict[str, jax.Array], dtype: jnp.dtype) -> jax.Array:
    """s (x A) B for x `[..., in]`, multiplied in `dtype`."""
    b = entry["scale"] * entry["b"]
    return (x.astype(dtype) @ entry["a"].astype(dtype)) @ b.astype(dtype)


def init_adapter(spec: Lora, key: jax.Array, params: dict) -> dict:
    """A and B of every target, B zero.

    Args:
        spec: what is adapted, and how.
        key: of the random A.
        params: of the network, arrays or shapes; where they are boxed with logical axis names, so is the adapter.

    Raises:
        InputError: no module is a target.
    """

    def entry(number: int, kernel: Any, names: tuple | None) -> dict:
        *stack, fan_in, fan_out = kernel.shape
        own = jax.random.fold_in(key, number)
        if spec.initial == "kaiming":
            limit = fan_in**-0.5
            a = jax.random.uniform(own, (*stack, fan_in, spec.rank), jnp.float32, -limit, limit)
        else:
            a = jax.random.normal(own, (*stack, fan_in, spec.rank), jnp.float32) / spec.rank
        b = jnp.zeros((*stack, spec.rank, fan_out), jnp.float32)
        return {"a": _boxed(a, names, (-2, None)), "b": _boxed(b, names, (None, -1))}

    return _built(target_kernels(spec.targets, params), entry)


def scales(spec: Lora, params: dict) -> dict:
    """s of every target, one a layer; arguments as of `init_adapter`."""

    def entry(number: int, kernel: Any, names: tuple | None) -> dict:
        del number
        return {"scale": _boxed(jnp.full(kernel.shape[:-2], spec.scale, jnp.float32), names, ())}

    return _built(target_kernels(spec.targets, params), entry)


def combine(adapters: Sequence[tuple[dict, float]]) -> dict:
    """Several adapters with weights as one, of scale 1, whose update is the weighted sum of theirs; host arrays."""
    found: dict[tuple[str, ...], list[dict]] = {}
    for adapter, weight in adapters:
        for path, entry in entries_of(adapter):
            a, b, scale = (np.asarray(entry[name], np.float32) for name in ("a", "b", "scale"))
            found.setdefault(path, []).append({"a": a, "b": np.float32(weight) * scale[..., None, None] * b})
    together: dict = {}
    for path, parts in found.items():
        a, b = (np.concatenate([part[name] for part in parts], axis) for name, axis in (("a", -1), ("b", -2)))
        put_entry(together, path, {"a": a, "b": b, "scale": np.ones(a.shape[:-2], np.float32)})
    return together


def fold(params: dict, adapter: dict) -> dict:
    """The parameters with W + s A B for W, each in the dtype that it has; added up in float32.

    The kernels that change are used up, so that there are never two of more than one of them. They stay on the devices
    they are on.
    """
    result = params
    for path, entry in entries_of(adapter):
        kernel: Any = result
        for key in (*path, "kernel"):
            kernel = kernel[key]
        result = _replaced(result, (*path, "kernel"), _fold(kernel.sharding)(kernel, entry))
    return result


def entries_of(adapter: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """(path of the module, its entry) of an adapter or of any tree that holds one."""
    for key in sorted(adapter):
        if key == ENTRY:
            yield path, adapter[key]
        elif isinstance(adapter[key], dict):
            yield from entries_of(adapter[key], (*path, key))


def only_entries(tree: dict) -> dict:
    """The adapter in a tree; empty where there is none."""
    adapter: dict = {}
    for path, entry in entries_of(tree):
        put_entry(adapter, path, entry)
    return adapter


def put_entry(tree: dict, path: tuple[str, ...], entry: dict) -> None:
    """Gives a module of an adapter its entry."""
    for key in path:
        tree = tree.setdefault(key, {})
    tree[ENTRY] = entry


def _built(targets: list, entry: Any) -> dict:
    tree: dict = {}
    for number, (path, kernel, names) in enumerate(targets):
        put_entry(tree, path, entry(number, kernel, names))
    return tree


def _boxed(x: jax.Array, names: tuple | None, axes: tuple[int | None, ...]) -> Any:
    """x with the kernel's logical axes: those in front, then those at these places, None for the rank."""
    if names is None:
        return x
    last = tuple(None if axis is None else names[axis] for axis in axes)
    return nn.LogicallyPartitioned(x, (*names[:-2], *last))


def _replaced(tree: dict, path: tuple[str, ...], value: Any) -> dict:
    key, *rest = path
    return {**tree, key: _replaced(tree[key], tuple(rest), value) if rest else value}


@functools.cache
def _fold(sharding: Any) -> Any:
    def added(kernel: jax.Array, entry: dict) -> jax.Array:
        a = jnp.asarray(entry["scale"])[..., None, None] * entry["a"]
        update = jnp.matmul(a, entry["b"], precision=jax.lax.Precision.HIGHEST)
        return (kernel.astype(jnp.float32) + update).astype(kernel.dtype)

    return jax.jit(added, donate_argnums=0, out_shardings=sharding)
