"""What the package said (`tests/fixtures/make_vbench_golden.py`), and the weights under which it said it."""

import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file

from mpjax.evaluation.vbench.weights import load, read
from mpjax.interop.checkpoint_files import Tensor
from tests.fixtures import vbench_cases
from tests.fixtures.torch_containers import write_zip


@functools.cache
def golden():
    return load_file(Path(vbench_cases.__file__).with_name("vbench.safetensors"))


def assert_close(mine, reference):
    """To 1e-4 of a feature of norm 1."""
    scale = np.linalg.norm(reference, axis=-1, keepdims=True) / np.sqrt(reference.shape[-1])
    np.testing.assert_allclose(mine / scale, reference / scale, atol=1e-4)


class Seeded(Mapping):
    """Tensors of every name, in the shape that `shapes` has for it; `prefix` is cut off the checkpoint's names."""

    def __init__(self, network, shapes, prefix):
        self.network, self.shapes, self.prefix = network, shapes, prefix

    def __getitem__(self, name):
        shape = self.shapes[name]
        read = functools.partial(vbench_cases.weight, self.prefix + name, shape, self.network)
        return Tensor(name=name, shape=shape, dtype=np.dtype(np.float32), read=read)

    def __iter__(self):
        return iter(self.shapes)

    def __len__(self):
        return len(self.shapes)


def torch_shapes(module, *inputs):
    """Names and shapes that a PyTorch checkpoint of a module has."""
    shapes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.eval_shape(module.init, jax.random.key(0), *inputs)):
        *modules, last = [key.key for key in path][1:]
        kind = {"kernel": "weight", "scale": "weight"}.get(last, last)
        name, shape = ".".join([*modules, kind]), leaf.shape
        layers = [""]
        if "{i}" in name:
            layers, shape = range(shape[0]), shape[1:]
        if last == "kernel":
            shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
        for layer in layers:
            shapes[name.replace("{i}", str(layer))] = shape
    return shapes


def params_from_file(path, module, network, *inputs, prefix="", within=None):
    """The same through a file in PyTorch's zip container, with names and nesting as its authors publish it."""
    shapes = torch_shapes(module, *inputs)
    write_zip(path, {prefix + name: vbench_cases.weight(name, shapes[name], network) for name in shapes}, within=within)
    return load(module, read(path, (prefix or f"{within}.",)), str(path), *inputs)


def seeded_params(module, network, *inputs, prefix=""):
    """The parameters that the golden numbers belong to."""
    return load(module, Seeded(network, torch_shapes(module, *inputs), prefix), network, *inputs)
