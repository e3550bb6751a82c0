"""Arrays that wait in the host's page-locked memory, which their devices read and write at the speed of their link."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Sharding

HOST = "pinned_host"


def in_host(sharding: Sharding) -> Sharding:
    """The same parts of an array, each in the memory of its device's host."""
    return sharding.with_memory_kind(HOST)


def brought_back(tree: Any) -> Any:
    """The same arrays, those in the host's memory moved to their devices.

    Args:
        tree: arrays, inside a program or outside, or their shapes with shardings.
    """
    return jax.tree.map(_brought_back, tree)


def compute(function: Callable, shardings: Any, *arguments: Any) -> Any:
    """The result of a jitted function under its shardings, of which some may be in the host's memory.

    It is on the devices first: a program for a TPU cannot write every array into the host's memory by itself.
    """
    here = jax.tree.map(_on_devices, shardings)
    return jax.device_put(jax.jit(function, out_shardings=here)(*arguments), shardings)


def _on_devices(sharding: Sharding) -> Sharding:
    return sharding.with_memory_kind("device") if sharding.memory_kind == HOST else sharding


def _brought_back(x: Any) -> Any:
    if isinstance(x, jax.ShapeDtypeStruct):
        return x if x.sharding is None else x.update(sharding=_on_devices(x.sharding))
    # A program in which nothing waits in the host has no operation for it.
    return jax.device_put(x, jax.memory.Space.Device) if jax.typeof(x).memory_space == jax.memory.Space.Host else x
