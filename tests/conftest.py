"""Fixtures shared by the tests."""

import os
from importlib.metadata import version

# Compiling, not computing, is what these tests spend their time on: spare LLVM's expensive passes. XLA aborts on a flag
# that it does not know, and JAX 0.11 does not know the last one.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""),
)

import pytest

from mpjax.conditioning import pretrained
from mpjax.models.memorypack import Denoiser
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch


@pytest.fixture(scope="session")
def tiny():
    """(denoiser, batch, perturbed parameters)."""
    denoiser = Denoiser(tiny_architecture())
    batch = tiny_batch(denoiser.architecture)
    return denoiser, batch, perturbed_params(denoiser, batch)


@pytest.fixture
def encoder_folder(tmp_path, monkeypatch):
    """A folder that passes for LLaMA, CLIP and SigLIP until they are loaded, and an empty cache of embeddings."""
    folder = tmp_path / "encoders"
    for name in pretrained.FOLDERS:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
        (folder / name / "model.safetensors").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pretrained.pretrained.cache_clear()
    return folder
