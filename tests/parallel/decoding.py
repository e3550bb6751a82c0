"""Run as a script by `processes.run`: videos of a large and a small tile, decoded on one device and on several.

Prints whether the bits agree, and of each run of a program how many tiles it had and on how many devices.
"""

import json
import sys
from unittest import mock

import jax
import numpy as np

from mpjax.codecs import hunyuan_vae
from mpjax.parallel.mesh import MeshShape
from tests.fixtures import reference_vae
from tests.parallel.processes import join


def decode(folder, videos, count):
    """The pixels, and [tiles, devices] of each run."""
    runs = []

    def watched(*key):
        def run(params, tiles):
            result = network(*key)(params, tiles)
            runs.append([len(tiles), len(result.devices())])
            return result

        return run

    network, devices = hunyuan_vae.compiled_network, jax.devices()[:count]
    seen = mock.patch.object(jax, "local_devices", lambda: devices)
    with seen, mock.patch.object(hunyuan_vae, "compiled_network", watched):
        codec = hunyuan_vae.HunyuanVaeCodec(weights=folder)
        return codec.decode(reference_vae.latents(1, 33, 1, videos)), runs


def main(folder):
    (want, one), (pixels, three) = decode(folder, 2, 1), decode(folder, 2, 3)
    alone, single = decode(folder, 1, 3)
    wanted, _ = decode(folder, 1, 1)
    meshes = []
    for shape in (MeshShape(), MeshShape(data=8)):
        with jax.set_mesh(shape.build()):
            meshes.append(decode(folder, 2, 8))
    same = [np.array_equal(got, want) for got in (pixels, *(got for got, _ in meshes))]
    same.append(np.array_equal(alone, wanted))
    tiles = [[count for count, _ in runs] for _, runs in meshes]
    print(json.dumps({"same": same, "one": one, "three": three, "single": single, "tiles_under_a_mesh": tiles}))


if __name__ == "__main__":
    main(join(sys.argv[1:]))
