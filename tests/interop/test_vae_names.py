import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mpjax.interop.vae_names import vae_entries
from mpjax.models.vae import VaeArchitecture
from tests.fixtures import reference_vae

GOLDEN = load_file(Path(__file__).parents[1] / "fixtures" / "vae.safetensors")


@pytest.fixture(scope="module")
def full():
    """name → shape of the full model's tensors, by `vae_entries`."""
    entries = vae_entries(VaeArchitecture())
    assert all(len(entry.names) == 1 for entry in entries)
    return {entry.names[0]: entry.shape for entry in entries}


def test_names_and_shapes_are_those_of_diffusers(full):
    assert len(full) == GOLDEN["full_tensors"][0] == 248
    np.testing.assert_array_equal(reference_vae.digest(reference_vae.listing(full)), GOLDEN["full_listing"])
    assert sum(math.prod(shape) for shape in full.values()) == 246_478_803


def test_a_few_names(full):
    assert full["encoder.down_blocks.1.resnets.0.conv_shortcut.conv.weight"] == (256, 128, 1, 1, 1)
    assert full["decoder.up_blocks.0.upsamplers.0.conv.conv.weight"] == (512, 512, 3, 3, 3)
    assert full["decoder.mid_block.attentions.0.to_out.0.bias"] == (512,)
    assert full["post_quant_conv.weight"] == (16, 16, 1, 1, 1)


@pytest.mark.parity
def test_the_full_listing(full):
    pytest.importorskip("torch")
    assert full == reference_vae.full_shapes()
