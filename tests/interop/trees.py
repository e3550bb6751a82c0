"""Parameter trees of checkpoints, all in memory: for tests, whose networks are small."""

import jax
import numpy as np
import orbax.checkpoint as ocp


def read_by_orbax(step):
    """The weights of a checkpoint step, `checkpoints/N`, as host arrays, read by Orbax alone."""
    folder = (step / "ema").absolute()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(folder).item_metadata.tree
        host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(folder, ocp.args.PyTreeRestore(restore_args=host))


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
