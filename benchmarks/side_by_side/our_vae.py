"""The autoencoder's cases on our side, in one pass as `models.vae` computes it."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from benchmarks.side_by_side.our_job import Job
from benchmarks.side_by_side.workload import INPUTS
from mpjax.interop.vae_weights import load_vae_params, read_vae_architecture
from mpjax.models.vae import Posterior, Vae


def decode(job: dict[str, Any]) -> Job:
    """Latents to video."""
    vae, params, inputs = _vae(job)

    def program(params: dict, latents: jax.Array) -> Any:
        return vae.apply({"params": params}, latents, method="decode")

    return Job(program, (params, inputs["latents"]), job["dtype"], lambda video: {"video": np.asarray(video)})


def encode(job: dict[str, Any]) -> Job:
    """Video to the mean and log-variance of its latents."""
    vae, params, inputs = _vae(job)

    def program(params: dict, video: jax.Array) -> Posterior:
        moments: Any = vae.apply({"params": params}, video, method="encode")
        return Posterior.of(moments)

    def to_file(posterior: Posterior) -> dict[str, np.ndarray]:
        return {name: np.asarray(array) for name, array in posterior._asdict().items()}

    return Job(program, (params, inputs["video"]), job["dtype"], to_file)


def _vae(job: dict[str, Any]) -> tuple[Vae, dict[str, Any], dict[str, jax.Array]]:
    folder = Path(job["folder"])
    architecture = read_vae_architecture(folder)
    params = jax.device_put(load_vae_params(folder, architecture))
    inputs = {name: jnp.asarray(array) for name, array in load_file(folder / INPUTS).items()}
    return Vae(architecture, jnp.dtype(job["dtype"])), params, inputs
