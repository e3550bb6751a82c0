"""What a comparison runs, a network or an autoencoder: random weights and inputs in files that both sides read."""

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from mpjax import experiment
from mpjax.conditioning.pretrained import IMAGE_TOKENS, TEXT_TOKENS
from mpjax.interop.checkpoint_files import CONFIG, TensorInfo
from mpjax.interop.checkpoint_writer import CheckpointWriter, default_files, write_index
from mpjax.interop.layout import Entry
from mpjax.interop.transformer_config import to_config
from mpjax.interop.transformer_names import transformer_entries
from mpjax.interop.vae_names import vae_entries
from mpjax.interop.vae_weights import vae_config
from mpjax.models.architecture import Architecture
from mpjax.models.flops import Tokens, token_counts
from mpjax.models.vae import SPACE_FACTOR, TIME_FACTOR, VaeArchitecture

INPUTS = "inputs.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A plain FramePack network and the sizes of what it reads; one video.

    Attributes:
        name: in tables.
        architecture: without long-term memory and encoders, which the rival does not have.
        latent_size: (height, width).
        text, image: tokens of the prompt and of the reference image.
    """

    name: str
    architecture: Architecture
    latent_size: tuple[int, int]
    text: int
    image: int

    @property
    def tokens(self) -> Tokens:
        """What the blocks read."""
        return token_counts(self.architecture, self.latent_size, text=self.text, image=self.image, memory=0)


MEDIUM = Workload(
    name="medium",
    architecture=Architecture(
        heads=6, dual_blocks=6, single_blocks=12, memory=None, encoders=None, dtype="float32", remat="dots"
    ),
    latent_size=(16, 16),
    text=64,
    image=49,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaeWorkload:
    """An autoencoder in float32 and the latents (t, h, w) that it decodes, or whose video it encodes."""

    architecture: VaeArchitecture
    latents: tuple[int, int, int]


# Half as wide as HunyuanVideo's, nine frames of 128 × 128: seconds on two cores.
HALF_VAE = VaeWorkload(architecture=VaeArchitecture(widths=(64, 128, 256, 256)), latents=(3, 16, 16))


def of_config(path: str, overrides: list[str]) -> Workload:
    """The network of an experiment, with as many tokens of prompt and image as FramePack's encoders give."""
    loaded = experiment.load(path, overrides)
    architecture = dataclasses.replace(loaded.model, memory=None, encoders=None)
    return Workload(
        name=Path(path).stem,
        architecture=architecture,
        latent_size=loaded.latent_size,
        text=TEXT_TOKENS,
        image=IMAGE_TOKENS,
    )


def normal(name: str, shape: tuple[int, ...], deviation: float = 1.0, mean: float = 0.0) -> np.ndarray:
    """float32, a function of name and shape."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    drawn = np.random.default_rng(seed).standard_normal(shape, np.float32)
    drawn *= np.float32(deviation)
    drawn += np.float32(mean)
    return drawn


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Of a layer that keeps its input's scale: deviation fan_in^-1/2; biases 0 ± 0.1, scales of norms 1 ± 0.1."""
    if len(shape) == 1:
        return normal(name, shape, 0.1, 0.0 if name.endswith("bias") else 1.0)
    return normal(name, shape, math.prod(shape[1:]) ** -0.5)


def write_weights(folder: Path, config: str, entries: tuple[Entry, ...], dtype: str) -> None:
    """Writes a checkpoint in diffusers' layout; one tensor is in memory at a time.

    Args:
        folder: exists.
        config: text of its `config.json`.
        entries: of the network.
        dtype: of all tensors.
    """
    stored = np.dtype(jnp.dtype(dtype))
    tensors = [TensorInfo(name=name, shape=e.shape, dtype=stored) for e in entries for name in e.names]
    files = default_files(tensors)
    (folder / CONFIG).write_text(config, encoding="utf-8")
    write_index(folder, tensors, files)
    with CheckpointWriter(folder, tensors, files, {}) as writer:
        for tensor in tensors:
            writer.write(tensor.name, weight(tensor.name, tensor.shape).astype(stored))


def write_vae(workload: VaeWorkload, folder: Path) -> dict[str, Any]:
    """As `write_network`, for an autoencoder; returns folder and dtype."""
    arch, (t, h, w) = workload.architecture, workload.latents
    write_weights(folder, vae_config(arch), vae_entries(arch), "float32")
    inputs = {
        "latents": normal("latents", (1, t, h, w, arch.channels)),
        "video": normal("video", (1, 1 + TIME_FACTOR * (t - 1), SPACE_FACTOR * h, SPACE_FACTOR * w, 3), 0.4),
    }
    save_file(inputs, folder / INPUTS)
    return {"folder": str(folder), "dtype": "float32"}


def write_network(workload: Workload, folder: Path) -> dict[str, Any]:
    """Writes weights and inputs into an empty folder.

    Returns:
        what a side must know to read them: folder, dtype, remat, history_frames, timestep, guidance.
    """
    arch, pack = workload.architecture, workload.architecture.framepack
    write_weights(folder, to_config(arch), transformer_entries(arch), arch.dtype)
    one = (1, *workload.latent_size, arch.channels)
    frames = (pack.segment_frames, *one[1:])
    inputs = {
        "noisy": normal("noisy", (1, *frames)),
        "target": normal("target", (1, *frames)),
        "reference": normal("reference", (1, *one)),
        "history": normal("history", (1, pack.reach, *one[1:])),
        "text": normal("text", (1, workload.text, arch.text_width)),
        "pooled": normal("pooled", (1, arch.pooled_width)),
        "image": normal("image", (1, workload.image, arch.image_width)),
    }
    save_file(inputs, folder / INPUTS)
    return {
        "folder": str(folder),
        "dtype": arch.dtype,
        "remat": arch.remat,
        "history_frames": list(pack.history_frames),
        "timestep": 500.0,
        "guidance": 1000.0,
    }
