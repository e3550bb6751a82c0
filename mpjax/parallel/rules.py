"""THE table of logical axes: every parameter and every activation that is split names its axes, and only this file says
which mesh axis each one takes."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mpjax.errors import InputError

Axes = tuple[str | None, ...]

# logical axis → mesh axes; None keeps it whole on every device
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "length": "context",  # tokens of a sequence
    "embed": "fsdp",  # width, of parameters; activations keep theirs whole
    "heads": "tensor",
    "mlp": "tensor",
    "layers": None,
}

# Activations `[b, n, d]`: tokens, and the hidden layer of an MLP.
TOKENS: Axes = ("batch", "length", None)
HIDDEN: Axes = ("batch", "length", "mlp")


def mesh_axes(axis: str | None) -> tuple[str, ...]:
    """The mesh axes that a logical axis takes.

    Raises:
        InputError: it is not in the table.
    """
    if axis is None:
        return ()
    if axis not in RULES:
        raise InputError(
            f"logical axis {axis!r} is not in parallel/rules.py: add it to RULES or use {', '.join(RULES)}"
        )
    target = RULES[axis]
    return (target,) if isinstance(target, str) else tuple(target or ())


def spec(axes: Axes) -> PartitionSpec:
    """Mesh axes of an array with these logical axes.

    Raises:
        InputError: a name is not in the table, or two axes of one array take the same mesh axis.
    """
    mapped = [mesh_axes(axis) for axis in axes]
    names = [name for target in mapped for name in target]
    if collisions := {name for name in names if names.count(name) > 1}:
        raise InputError(f"logical axes {axes} put two dimensions on mesh axis {', '.join(collisions)}: rename one")
    return PartitionSpec(*(target[0] if len(target) == 1 else target or None for target in mapped))


def fitting_spec(axes: Axes, shape: tuple[int, ...], sizes: Mapping[str, int]) -> PartitionSpec:
    """`spec` for an array of this shape on a mesh of these sizes: dimensions that do not divide stay whole."""
    parts = []
    for size, axis, target in zip(shape, axes, spec(axes), strict=True):
        devices = math.prod(sizes[name] for name in mesh_axes(axis))
        parts.append(target if size % devices == 0 else None)
    return PartitionSpec(*parts)


# -- What lies on a mesh ---------------------------------------------------------------------------------------------


def sharding_of(leaf: object, mesh: Mesh) -> NamedSharding:
    """Sharding of a possibly boxed leaf; dimensions that do not divide stay whole."""
    if not isinstance(leaf, nn.LogicallyPartitioned):
        return NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, fitting_spec(leaf.names, leaf.value.shape, mesh.shape))


def tree_shardings(boxed: Any, mesh: Mesh) -> Any:
    """Shardings of a tree whose parameters are boxed with logical axis names; unboxed leaves are replicated."""
    is_box = lambda x: isinstance(x, nn.LogicallyPartitioned)  # noqa: E731
    return jax.tree.map(lambda leaf: sharding_of(leaf, mesh), boxed, is_leaf=is_box)


def batch_sharding(mesh: Mesh, batch_size: int) -> NamedSharding:
    """Sharding of every batch array: the first axis over all data-parallel devices.

    Raises:
        InputError: they do not divide the batch.
    """
    parts = math.prod(mesh.shape[name] for name in mesh_axes("batch"))
    if batch_size % parts:
        raise InputError(f"batch_size is {batch_size}: it must be a multiple of the mesh's data · fsdp = {parts}")
    return NamedSharding(mesh, spec(("batch",)))


# -- What is computed on the mesh of `jax.set_mesh` ------------------------------------------------------------------


def on_mesh() -> bool:
    """Whether a mesh of several devices is set; not inside a `jax.shard_map` over all of it."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.size > 1 and set(mesh.manual_axes) != set(mesh.axis_names)


def devices_along(axis: str) -> int:
    """Into how many parts the current mesh splits a logical axis; 1 without a mesh."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes[name] for name in mesh_axes(axis)) if sizes else 1


def constrain(x: jax.Array, axes: Axes) -> jax.Array:
    """The same array, split over the current mesh as its logical axes say; dimensions that do not divide stay whole.

    Without a mesh, or on one device, no operation at all.
    """
    if not on_mesh():
        return x
    sizes = jax.sharding.get_abstract_mesh().shape
    return jax.lax.with_sharding_constraint(x, fitting_spec(axes, x.shape, sizes))
