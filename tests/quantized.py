"""Quantised kernels and networks, all in memory."""

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.models import quantization


def entry_of(spec, w):
    """The entry of a kernel `[in, out]`."""
    values, scales = quantization.quantize(spec, spec.block_of(w.shape[0]), w)
    return {"values": jnp.asarray(values), "scales": jnp.asarray(scales)}


def quantized(spec, params):
    """A network with its targets quantised, and the same with what these stand for as plain kernels."""

    def stack(kernel):
        layers = [entry_of(spec, layer) for layer in np.asarray(kernel).reshape(-1, *kernel.shape[-2:])]
        joined = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
        return jax.tree.map(lambda leaf: leaf.reshape(*kernel.shape[:-2], *leaf.shape[-2:]), joined)

    eight = quantization.with_entries(spec, params, stack)

    def multiplied_out(tree):
        if not isinstance(tree, dict):
            return tree
        tree = {key: multiplied_out(value) for key, value in tree.items()}
        if entry := tree.pop(quantization.ENTRY, None):
            tree["kernel"] = quantization.dequantize(entry)
        return tree

    return eight, multiplied_out(eight)
