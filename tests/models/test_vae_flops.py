"""Operations of the autoencoder against hand calculation, and against the products of the traced network."""

import jax
import jax.numpy as jnp
import pytest

from mpjax.interop.vae_names import vae_shapes
from mpjax.models import convolution
from mpjax.models.vae import Vae, VaeArchitecture
from mpjax.models.vae_flops import decode_flops, encode_flops
from tests.tracing import multiplications

SMALL = VaeArchitecture(channels=4, widths=(4, 8, 8, 12), layers=1, groups=4)


@pytest.mark.parametrize("architecture", [SMALL, VaeArchitecture(channels=2, widths=(4, 4, 8, 8), layers=2, groups=2)])
@pytest.mark.parametrize("latents", [(1, 2, 3), (3, 4, 2)])
def test_it_is_what_the_network_multiplies(architecture, latents, monkeypatch):
    # Counted as direct convolutions: what a CPU takes in their place needs fewer.
    monkeypatch.setattr(convolution, "target_device", lambda: ("gpu", "a card"))
    t, h, w = latents
    vae, params = Vae(architecture), {"params": vae_shapes(architecture)}
    video = jax.ShapeDtypeStruct((1, 1 + 4 * (t - 1), 8 * h, 8 * w, 3), jnp.float32)
    z = jax.ShapeDtypeStruct((1, *latents, architecture.channels), jnp.float32)
    encoded = jax.make_jaxpr(lambda p, x: vae.apply(p, x, method="encode"))(params, video)
    decoded = jax.make_jaxpr(lambda p, x: vae.apply(p, x, method="decode"))(params, z)
    assert encode_flops(architecture, latents) == multiplications(encoded.jaxpr)
    assert decode_flops(architecture, latents) == multiplications(decoded.jaxpr)


def test_one_place_by_hand():
    """One latent of one frame: 8 × 8 pixels, and attention of one place to itself."""
    arch = VaeArchitecture(channels=1, widths=(1, 1, 1, 1), layers=1, groups=1)
    middle = 2 * 2 * 54 + 4 * 2 + 4
    # In: at 8 × 8. A residual block of two convolutions a stage; downsampled to 4 × 4, 2 × 2 and 1. Out: 2 moments.
    encoder = 3 * 54 * 64 + 108 * 64 + 54 * 16 + 108 * 16 + 54 * 4 + 108 * 4 + 54 + 108 + middle + 2 * 54 + 2 * 2 * 2
    assert encode_flops(arch, (1, 1, 1)) == encoder
    # Two residual blocks a stage; upsampled behind the first three.
    decoder = 2 + 54 + middle + 216 + 54 * 4 + 216 * 4 + 54 * 16 + 216 * 16 + 54 * 64 + 216 * 64 + 3 * 54 * 64
    assert decode_flops(arch, (1, 1, 1)) == decoder
