"""Decode and encode on our side against the autoencoder read and called by hand."""

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from benchmarks.side_by_side import our_vae
from benchmarks.side_by_side.workload import VaeWorkload, weight, write_vae
from mpjax.interop.vae_names import vae_entries
from mpjax.interop.vae_weights import read_vae_architecture
from mpjax.models.vae import Posterior, Vae, VaeArchitecture
from tests.interop.trees import to_tree

TINY = VaeWorkload(architecture=VaeArchitecture(widths=(4, 4, 8, 8), layers=1, groups=2), latents=(2, 1, 2))


def test_both_directions(tmp_path):
    job, arch = write_vae(TINY, tmp_path), TINY.architecture
    assert read_vae_architecture(tmp_path) == arch
    inputs = load_file(tmp_path / "inputs.safetensors")
    assert inputs["latents"].shape == (1, 2, 1, 2, 16) and inputs["video"].shape == (1, 5, 8, 16, 3)
    tensors = {name: weight(name, entry.shape) for entry in vae_entries(arch) for name in entry.names}
    variables = {"params": to_tree(vae_entries(arch), tensors)}
    video = Vae(arch).apply(variables, jnp.asarray(inputs["latents"]), method="decode")
    moments = Posterior.of(Vae(arch).apply(variables, jnp.asarray(inputs["video"]), method="encode"))

    our_vae.decode(job).write(str(tmp_path / "a"))
    np.testing.assert_allclose(load_file(tmp_path / "a")["video"], video, atol=1e-5)
    our_vae.encode(job).write(str(tmp_path / "a"))
    for name, wanted in moments._asdict().items():
        np.testing.assert_allclose(load_file(tmp_path / "a")[name], wanted, atol=1e-5)
