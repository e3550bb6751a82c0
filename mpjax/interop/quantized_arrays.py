"""Stored weights quantised as they are read, a layer at a time: no stack of them is ever whole in more than 8 bits."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mpjax.interop.stored_array import Index, StoredArray
from mpjax.models.quantization import FORMATS, Quantization, block_scales, quantize, with_entries


def quantized_arrays(spec: Quantization, tree: dict) -> dict:
    """A tree of `StoredArray` with the kernels quantised as `spec` says.

    Values and scales each read the kernel. They follow one another in a tree, so that the second time it comes from the
    system's cache.

    Raises:
        InputError: no module is a target.
    """
    return with_entries(spec, tree, lambda kernel: _entry(spec, kernel))


def _entry(spec: Quantization, kernel: StoredArray) -> dict[str, Any]:
    inputs, shape = kernel.shape[-2], spec.scales_shape(kernel.shape)
    block = spec.block_of(inputs)

    def layers(index: Index, rows: slice, make: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """`make` of these inputs of every layer at an index, whose last slice says which outputs."""
        if len(index) == 2:
            return make(kernel.read((rows, index[1])))
        first, last, _ = index[0].indices(kernel.shape[0])
        result = None
        for start in range(first // kernel.block * kernel.block, last, kernel.block):
            begin, end = max(start, first), min(start + kernel.block, last)
            for n, layer in enumerate(kernel.read((slice(begin, end), rows, index[2])), begin - first):
                made = make(layer)
                if result is None:
                    result = np.empty((last - first, *made.shape), made.dtype)
                result[n] = made
        assert result is not None  # a stack has a layer
        return result

    def read_values(index: Index) -> np.ndarray:
        start, stop, _ = index[-2].indices(inputs)
        first, last = start // block * block, min(-(-stop // block) * block, inputs)  # whole blocks
        return layers(
            index, slice(first, last), lambda piece: quantize(spec, block, piece)[0][start - first : stop - first]
        )

    def read_scales(index: Index) -> np.ndarray:
        start, stop, _ = index[-2].indices(shape[-2])
        rows = slice(start * block, min(stop * block, inputs))
        return layers(index, rows, lambda piece: block_scales(spec, block, piece))

    dtype = FORMATS[spec.format].dtype
    return {
        "values": StoredArray(shape=kernel.shape, dtype=dtype, read=read_values, block=kernel.block),
        "scales": StoredArray(
            shape=shape, dtype=np.dtype(np.float32), read=read_scales, block=min(kernel.block, shape[0])
        ),
    }
