"""Run as a script by `processes.run`: two segments of one video on every mesh of a spec.

Prints for each mesh the latents, and how much of the weights the first device of this process holds.
"""

import json
import sys

import flax.linen as nn
import jax
import numpy as np

from mpjax import codecs
from mpjax.diffusion.samplers import Euler
from mpjax.generation.rollout import Rollout
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.rules import tree_shardings
from tests.parallel.five_steps import share
from tests.parallel.processes import join
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch


def video(shape):
    """(latents of two segments, share of the weights on the first device)."""
    denoiser = Denoiser(tiny_architecture())
    batch = tiny_batch(denoiser.architecture)
    params, mesh = perturbed_params(denoiser, batch), MeshShape(**shape).build()
    examples = (batch.prompts[:, 0], batch.reference, batch.segments[:, 0])
    shardings = tree_shardings(jax.eval_shape(denoiser.init, jax.random.key(0), *examples), mesh)
    place = lambda x, to: jax.make_array_from_callback(x.shape, to, lambda index: np.asarray(x)[index])  # noqa: E731
    params = jax.tree.map(place, nn.unbox(params), shardings)
    rollout = Rollout(denoiser, Euler(steps=2), codecs.create("identity"), params, mesh=mesh)
    prompts = np.asarray(batch.prompts)
    _, state = rollout.start(prompts[0, 0], np.asarray(batch.reference[0]), seed=3)
    latents = []
    for prompt in prompts[0, :2]:
        _, state = rollout.generate(state, prompt)
        latents.append(np.asarray(state.video.history.frames[0, -2:]))
    return np.concatenate(latents), share(params)


def main(meshes):
    """{name: fields} → {name: {latents, share}}."""
    rows = {}
    for name, shape in meshes.items():
        latents, own = video(shape)
        rows[name] = {"latents": latents.tolist(), "share": own}
    print(json.dumps(rows), flush=True)


if __name__ == "__main__":
    main(join(sys.argv[1:]))
    jax.distributed.shutdown()
