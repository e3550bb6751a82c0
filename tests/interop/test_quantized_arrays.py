"""Kernels quantised as they are read: any piece is that of the whole, and little of a kernel is there at once."""

import math
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.interop.quantized_arrays import quantized_arrays
from mpjax.interop.stored_array import StoredArray
from mpjax.models.quantization import Quantization, quantize

EVERYTHING = ".*"


def stored(array, block=1, seen=None):
    """An array as if in a file; notes the sizes of what is read."""

    def read(index):
        piece = array[index]
        if seen is not None:
            seen.append(piece.size)
        return piece

    return StoredArray(shape=array.shape, dtype=array.dtype, read=read, block=block)


def entry_of(spec, kernel):
    tree = {"up": {"kernel": kernel, "bias": stored(np.zeros(3))}, "norm": {"scale": stored(np.ones(3))}}
    made = quantized_arrays(spec, tree)
    assert made["norm"] is tree["norm"] and made["up"].keys() == {"bias", "quantized"}
    return made["up"]["quantized"]


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", ["int8", "fp8"])
@pytest.mark.parametrize("layers", [None, 5])
def test_every_piece_is_that_of_the_whole(name, dtype, layers):
    """Whatever the bounds of a device's part; stacks are read by what their file keeps together."""
    spec, rng = Quantization(format=name, block=8, targets=EVERYTHING), np.random.default_rng(0)
    shape = (37, 6) if layers is None else (layers, 37, 6)
    kernel = rng.normal(size=shape).astype(dtype)
    each = [quantize(spec, 8, layer) for layer in kernel.reshape(-1, 37, 6)]
    whole = [np.stack(parts).reshape(*shape[:-2], *parts[0].shape) for parts in zip(*each, strict=True)]
    for block in (1, 2, 5):
        entry = entry_of(spec, stored(kernel, block))
        for array, expected in zip((entry["values"], entry["scales"]), whole, strict=True):
            assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
            assert array.all().tobytes() == expected.tobytes()
            for _ in range(20):
                ends = [sorted(rng.choice(size + 1, 2, replace=False)) for size in array.shape]
                index = tuple(slice(*map(int, pair)) for pair in ends)
                np.testing.assert_array_equal(array.read(index), expected[index])


def test_a_layer_at_a_time():
    """Of a stack of 40 the whole in 8 bits and some float32 copies of a layer are there, and no more."""
    spec, seen = Quantization(targets=EVERYTHING), []
    kernel = np.random.default_rng(0).normal(size=(40, 256, 512)).astype(np.float32)
    entry = entry_of(spec, stored(kernel, seen=seen))
    layer = kernel[0].nbytes
    tracemalloc.start()
    try:
        values = entry["values"].all()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max(seen) == math.prod(kernel.shape[1:]) and len(seen) == 40
    assert values.nbytes == kernel.nbytes // 4 and peak < values.nbytes + 5 * layer < kernel.nbytes / 2
