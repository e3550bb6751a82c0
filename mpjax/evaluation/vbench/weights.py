"""From a PyTorch state dict to Flax parameters.

The modules here name their layers as the checkpoint does, dots included, so that a parameter's path is its tensor's
name and only the layout of kernels differs. A path that contains `{i}` is a scanned stack: one tensor a layer.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import Tensor
from mpjax.interop.torch_files import open_tensors

Names = Callable[[str], str]


def read(path: Path, prefixes: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The tensors of a checkpoint; of the first of `prefixes` that occurs only those, without it.

    Raises:
        InputError: as `open_tensors`.
    """
    tensors = open_tensors(path)
    for prefix in prefixes:
        inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if inside:
            return inside
    return tensors


def load(module: nn.Module, tensors: Mapping[str, Tensor], source: str, *inputs: jax.ShapeDtypeStruct) -> Any:
    """Parameters of a module from the tensors of their names.

    Args:
        module: whose layers are named as in the checkpoint.
        tensors: by name.
        source: the file, for errors.
        inputs: of what shape the module is called.

    Returns:
        the variables for `module.apply`, float32.

    Raises:
        InputError: a tensor is missing or has another shape.
    """
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _leaf(path, leaf.shape, tensors, source), shapes)


def _leaf(path: tuple, shape: tuple[int, ...], tensors: Mapping[str, Tensor], source: str) -> np.ndarray:
    *modules, last = [key.key for key in path][1:]  # without the collection
    last = {"kernel": "weight", "scale": "weight"}.get(last, last)
    name = ".".join([*modules, last])
    if "{i}" not in name:
        return _tensor(name, path[-1].key, shape, tensors, source)
    layers = [_tensor(name.replace("{i}", str(i)), path[-1].key, shape[1:], tensors, source) for i in range(shape[0])]
    return np.stack(layers)


def _tensor(name: str, kind: str, shape: tuple[int, ...], tensors: Mapping[str, Tensor], source: str) -> np.ndarray:
    if name not in tensors:
        raise InputError(f"{source} has no tensor {name}: it is another network's file; see docs/evaluation.md")
    array = np.asarray(tensors[name].read(), np.float32)
    if kind == "kernel":  # [out, in, height, width] → [height, width, in, out], and [out, in] → [in, out]
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    if array.shape != shape:
        raise InputError(
            f"{source}: {name} has shape {tensors[name].shape}, which is not this network's; see docs/evaluation.md"
        )
    return array
