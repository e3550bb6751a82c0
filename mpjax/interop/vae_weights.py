"""Reads an autoencoder as diffusers saves it: a folder with `config.json` and one safetensors file, or that file alone.

Source: diffusers 0.42 `AutoencoderKLHunyuanVideo.save_pretrained`.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mpjax import config
from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import Checkpoint
from mpjax.interop.transformer_tensors import check_tensors, stored_arrays
from mpjax.interop.vae_names import vae_entries
from mpjax.models.vae import SPACE_FACTOR, TIME_FACTOR, VaeArchitecture

CLASS = "AutoencoderKLHunyuanVideo"
TENSORS = "diffusion_pytorch_model.safetensors"
REMEDY = f"give the folder of an {CLASS} that diffusers saved (config.json and {TENSORS}), or that safetensors file"

# What the network here cannot be told to do otherwise; diffusers' defaults are the same.
_FIXED = {
    "in_channels": 3,
    "out_channels": 3,
    "act_fn": "silu",
    "spatial_compression_ratio": SPACE_FACTOR,
    "temporal_compression_ratio": TIME_FACTOR,
    "mid_block_add_attention": True,
}
_FIELDS = {
    "latent_channels": "channels",
    "block_out_channels": "widths",
    "layers_per_block": "layers",
    "norm_num_groups": "groups",
    "scaling_factor": "scaling_factor",
}


def read_vae_architecture(weights: Path) -> VaeArchitecture:
    """The sizes that a folder's `config.json` states; a file alone is taken for the full model.

    Raises:
        InputError: there is no such folder or file, or it describes another network.
    """
    if not weights.exists():
        raise InputError(f"{weights} does not exist: {REMEDY}")
    if weights.is_file():
        return VaeArchitecture()
    path = weights / "config.json"
    try:
        stored = json.loads(path.read_text())
        class_name = stored.get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no readable config of an autoencoder: {REMEDY}") from error
    if class_name != CLASS:
        raise InputError(f"{path} is of class {class_name}: {REMEDY}")
    for name, value in _FIXED.items():
        if (found := stored.get(name, value)) != value:
            raise InputError(f"{path} has {name} = {found!r}, but only {value!r} is supported: give other weights")
    fields = {ours: stored[theirs] for theirs, ours in _FIELDS.items() if theirs in stored}
    return config.build(VaeArchitecture, fields, str(path))


def vae_config(architecture: VaeArchitecture) -> str:
    """The text of `config.json`, which `read_vae_architecture` reads back."""
    values: dict[str, Any] = {theirs: getattr(architecture, ours) for theirs, ours in _FIELDS.items()}
    return json.dumps({"_class_name": CLASS, **_FIXED, **values}, indent=2, sort_keys=True) + "\n"


def check_vae_tensors(weights: Path, architecture: VaeArchitecture) -> Checkpoint:
    """The tensors of a folder or file, opened and not read.

    Raises:
        InputError: there is no such folder or file, it is damaged, or its tensors are not those of the architecture.
    """
    if not weights.exists():
        raise InputError(f"{weights} does not exist: {REMEDY}")
    checkpoint = Checkpoint.open(weights)
    check_tensors(checkpoint.tensors, vae_entries(architecture), weights)
    return checkpoint


def load_vae_params(weights: Path, architecture: VaeArchitecture) -> dict[str, Any]:
    """The parameters of `models.vae.Vae`, float32 on the host, whatever type they are stored in.

    Raises:
        InputError: as `check_vae_tensors`.
    """
    tensors = check_vae_tensors(weights, architecture).tensors
    arrays = stored_arrays(tensors, vae_entries(architecture), np.dtype(np.float32))
    return jax.tree.map(lambda array: np.ascontiguousarray(array.all()), arrays)
