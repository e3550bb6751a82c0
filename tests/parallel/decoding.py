"""Run as a script by `processes.run`: two videos of two tiles each, decoded on one device and on all.

Prints whether the bits agree, and on which devices the tiles were, in their order.
"""

import json
import sys
from unittest import mock

import jax
import numpy as np

from mpjax.codecs import hunyuan_vae
from tests.fixtures import reference_vae
from tests.parallel.processes import join


def decode(folder, devices):
    """The pixels, and the devices of the tiles."""
    used = []

    def watched(*key):
        def run(params, tile):
            assert all(leaf.devices() == tile.devices() for leaf in jax.tree.leaves(params))
            used.append(next(iter(tile.devices())).id)
            return network(*key)(params, tile)

        return run

    network = hunyuan_vae.compiled_network
    all_devices = mock.patch.object(jax, "local_devices", lambda: devices)
    with all_devices, mock.patch.object(hunyuan_vae, "compiled_network", watched):
        codec = hunyuan_vae.HunyuanVaeCodec(weights=folder)
        return codec.decode(reference_vae.latents(1, 33, 1, 2)), used


if __name__ == "__main__":
    folder = join(sys.argv[1:])
    (one, alone), (several, dealt) = (decode(folder, jax.devices()[:count]) for count in (1, 3))
    print(json.dumps({"equal": np.array_equal(one, several), "alone": alone, "dealt": dealt}))
