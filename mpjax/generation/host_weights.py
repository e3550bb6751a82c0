"""Weights that make room on their devices while the codec works."""

from typing import Any

import jax

from mpjax.parallel.host_memory import in_host


class HostWeights:
    """Parameters of which the host keeps a copy, so that they can leave their devices and come back with the same bits.

    The copy is in page-locked memory, from which a device reads at the full speed of its link.
    """

    def __init__(self, params: dict):
        """`params`, `jax.Array`s, are used up: `leave` frees them, whoever else holds them."""
        self._shardings = jax.tree.map(lambda x: x.sharding, params)
        # Bound to their devices as when they come back, else programs would be compiled twice.
        self._here: Any = jax.device_put(params, self._shardings)
        self._copy = jax.device_put(params, jax.tree.map(in_host, self._shardings))

    def here(self) -> dict:
        """The parameters on their devices."""
        if self._here is None:
            self._here = jax.device_put(self._copy, self._shardings)
        return self._here

    def leave(self) -> None:
        """Frees the devices, once what was started with the parameters is done."""
        if self._here is not None:
            jax.block_until_ready(self._copy)
            for leaf in jax.tree.leaves(self._here):
                leaf.delete()
            self._here = None
