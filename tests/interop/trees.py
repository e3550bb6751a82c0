"""Parameter trees from the tensors of a checkpoint and back, all in memory: for tests, whose networks are small."""

import numpy as np


def to_tree(entries, tensors):
    """Tensors by name → nested parameters of numpy arrays."""
    tree = {}
    for entry in entries:
        layers = [np.ascontiguousarray(entry.to_array(tensors[name])) for name in entry.names]
        *inner, leaf = entry.path
        node = tree
        for key in inner:
            node = node.setdefault(key, {})
        node[leaf] = np.stack(layers) if entry.stacked else layers[0]
    return tree


def to_tensors(entries, tree):
    """The inverse."""
    tensors = {}
    for entry in entries:
        array = tree
        for key in entry.path:
            array = array[key]
        layers = np.asarray(array) if entry.stacked else [np.asarray(array)]
        tensors |= {name: entry.to_tensor(layer) for name, layer in zip(entry.names, layers, strict=True)}
    return tensors
