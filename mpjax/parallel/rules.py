"""THE table of logical axes: every parameter names its axes, and only this file says which mesh axis each one takes."""

from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mpjax.errors import InputError

# logical axis → mesh axes; None keeps it whole on every device
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
    "layers": None,
}


def spec(axes: tuple[str | None, ...]) -> PartitionSpec:
    """Mesh axes of an array with these logical axes.

    Raises:
        InputError: a name is not in the table, or two axes of one array take the same mesh axis.
    """
    mapped = []
    taken: set[str] = set()
    for axis in axes:
        if axis is not None and axis not in RULES:
            raise InputError(
                f"logical axis {axis!r} is not in parallel/rules.py: add it to RULES or use {', '.join(RULES)}"
            )
        target = None if axis is None else RULES[axis]
        names = {target} if isinstance(target, str) else set(target or ())
        if names & taken:
            raise InputError(
                f"logical axes {axes} put two dimensions on mesh axis {', '.join(names & taken)}: rename one"
            )
        taken |= names
        mapped.append(target)
    return PartitionSpec(*mapped)


def sharding_of(leaf: object, mesh: Mesh) -> NamedSharding:
    """Sharding of a possibly boxed leaf; dimensions that do not divide stay whole."""
    if not isinstance(leaf, nn.LogicallyPartitioned):
        return NamedSharding(mesh, PartitionSpec())
    partition = spec(leaf.names)
    parts = []
    for size, target in zip(leaf.value.shape, partition, strict=True):
        names = (target,) if isinstance(target, str) else (target or ())
        devices = 1
        for name in names:
            devices *= mesh.shape[name]
        parts.append(target if size % devices == 0 else None)
    return NamedSharding(mesh, PartitionSpec(*parts))


def tree_shardings(boxed: Any, mesh: Mesh) -> Any:
    """Shardings of a tree whose parameters are boxed with logical axis names; unboxed leaves are replicated."""
    is_box = lambda x: isinstance(x, nn.LogicallyPartitioned)  # noqa: E731
    return jax.tree.map(lambda leaf: sharding_of(leaf, mesh), boxed, is_leaf=is_box)


def batch_sharding(mesh: Mesh, batch_size: int) -> NamedSharding:
    """Sharding of every batch array: the first axis over all data-parallel devices.

    Raises:
        InputError: they do not divide the batch.
    """
    sharding = NamedSharding(mesh, spec(("batch",)))
    parts = sharding.num_devices // mesh.shape["tensor"]
    if batch_size % parts:
        raise InputError(f"batch_size is {batch_size}: it must be a multiple of the mesh's data · fsdp = {parts}")
    return sharding
