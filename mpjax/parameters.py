"""Trees of parameters: nested dicts of arrays, where each array has a path, and a tree may hold a part of another."""

from typing import Any

import flax.linen as nn


def parameter_path(path: tuple[Any, ...]) -> str:
    """A jax key path as `a/b/kernel`."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)


def is_box(x: Any) -> bool:
    """Whether this is a parameter boxed with logical axis names."""
    return isinstance(x, nn.meta.AxisMetadata)


def merge(a: Any, b: Any) -> Any:
    """One tree of the arrays of two; either may lack branches of the other, or have None there.

    Where both have an array, it is that of `a`.
    """
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return b if a is None else a
    return {key: merge(a.get(key), b.get(key)) for key in {**a, **b}}


def pruned(tree: Any) -> Any:
    """The tree without its Nones, and without the branches that held nothing else; None if nothing is left."""
    if not isinstance(tree, dict):
        return tree
    kept = {key: part for key, value in tree.items() if (part := pruned(value)) is not None}
    return kept or None


def without(tree: Any, other: Any) -> Any:
    """The part of a tree that another one lacks; None if that is nothing."""
    if not isinstance(tree, dict):
        return tree if other is None else None
    others = other if isinstance(other, dict) else {}
    return pruned({key: without(value, others.get(key)) for key, value in tree.items()})
