from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mpjax.errors import InputError
from mpjax.models.vae import Posterior, Vae, VaeArchitecture, repeat_frames
from mpjax.models.vae_tiling import Tiling, TimeTiles, decoding_tiles, encoding_tiles
from mpjax.parallel.rules import spec
from tests.fixtures import reference_vae, tiny_vae
from tests.fixtures.seeded import normal, picked

GOLDEN = load_file(Path(__file__).parents[1] / "fixtures" / "vae.safetensors")


@pytest.fixture(scope="module")
def network():
    """method → the compiled network with its weights, from host arrays to host arrays."""
    params, vae = tiny_vae.params(), Vae(tiny_vae.ARCHITECTURE)

    def compiled(method):
        run = jax.jit(lambda params, x: vae.apply({"params": params}, x, method=method))
        return lambda x: np.asarray(run(params, x))

    return {method: compiled(method) for method in ("encode", "decode")}


def of_each(run):
    """A network of one piece as one of pieces."""
    return lambda pieces: [run(x) for x in pieces]


def ours(network, x: np.ndarray, *, encode: bool, framewise: bool = True, spatial: bool = False) -> np.ndarray:
    """What `reference_vae.run_on` does, here."""
    method, make_tiles = ("encode", encoding_tiles) if encode else ("decode", decoding_tiles)
    tiling = Tiling(spatial=spatial, side=reference_vae.TILE, side_stride=reference_vae.TILE_STRIDE)
    result = make_tiles(of_each(network[method]), tiling).whole(x) if framewise else network[method](x)
    return np.concatenate(Posterior.of(result), -1) if encode else result


@pytest.mark.parametrize("name", reference_vae.CASES)
def test_diffusers_numbers(network, name):
    make, options = reference_vae.CASES[name]
    result = picked(name, ours(network, make(), encode=name.startswith("encode"), **options), reference_vae.SAMPLES)
    assert GOLDEN[name].std() > 0.2
    np.testing.assert_allclose(result[1:], GOLDEN[name][1:], atol=1e-5)
    np.testing.assert_allclose(result[0], GOLDEN[name][0], rtol=1e-5)  # the norm of all entries


@pytest.mark.parity
def test_diffusers_in_full(network):
    pytest.importorskip("torch")
    theirs = reference_vae.reference()
    for name, (make, options) in reference_vae.CASES.items():
        expected = reference_vae.run(theirs, name)
        np.testing.assert_allclose(
            ours(network, make(), encode=name.startswith("encode"), **options), expected, atol=1e-5
        )
    # Tiles in space inside tiles along time, and pictures that are not square.
    for x, encode in ((reference_vae.video(29, 48, 32), True), (reference_vae.latents(8, 4, 6), False)):
        expected = reference_vae.run_on(theirs, x, encode=encode, spatial=True)
        # Small tiles leave GroupNorm few values: against float64, diffusers in float32 is off by up to 1.0e-5 itself.
        np.testing.assert_allclose(ours(network, x, encode=encode, spatial=True), expected, atol=3e-5)


def test_a_tile_or_less_is_a_single_pass(network):
    """Up to 16 pixel and 4 latent frames there are no tiles; above, even what fits into the first is blended."""
    decode = network["decode"]
    tiles = decoding_tiles(of_each(decode), Tiling())
    for frames in (1, 2):
        latents = reference_vae.latents(frames, 2, 3)
        np.testing.assert_array_equal(tiles.whole(latents), decode(latents))
    latents = reference_vae.latents(5, 2, 3)
    whole, single = tiles.whole(latents), decode(latents)
    np.testing.assert_array_equal(whole[:, :14], single[:, :14])
    assert np.abs(whole[:, 14:] - single[:, 14:]).max() > 0.01


@pytest.mark.parametrize("chunks", [(1,) * 8, (3, 0, 5), (8,), (7, 1)])
def test_a_stream_of_tiles_gives_the_bits_of_one_call(network, chunks):
    tiles, latents = decoding_tiles(of_each(network["decode"]), Tiling()), reference_vae.latents(8, 2, 3)
    state, parts, position = TimeTiles(latents[:, :0]), [], 0
    for count in chunks:
        done, state = tiles.push(state, latents[:, position : position + count])
        parts += done
        position += count
    np.testing.assert_array_equal(np.concatenate([*parts, *tiles.finish(state)], 1), tiles.whole(latents))


def test_the_norms_alone_look_ahead(network):
    """Later latents reach earlier pixels; through GroupNorm, since a later frame of equal statistics does not."""
    a = reference_vae.latents(5, 2, 3)
    b = a.copy()
    b[:, 4] += normal("later", b[:, 4].shape)
    early = slice(0, 13)  # what the first four latents stand for
    assert np.abs(network["decode"](a) - network["decode"](b))[:, early].max() > 1e-3


def test_the_first_frame_grows_in_space_alone():
    x = np.arange(2 * 3 * 2, dtype=np.float32).reshape(1, 2, 3, 2, 1)
    grown = repeat_frames(jnp.asarray(x), (2, 2, 2))
    expected = np.concatenate([x[:, :1], x[:, 1:], x[:, 1:]], 1).repeat(2, 2).repeat(2, 3)
    np.testing.assert_array_equal(grown, expected)
    np.testing.assert_array_equal(repeat_frames(jnp.asarray(x), (1, 2, 2)), x.repeat(2, 2).repeat(2, 3))


def test_posterior():
    moments = jnp.asarray(normal("moments", (1, 2, 2, 2, 8), 40.0))
    posterior = Posterior.of(moments)
    np.testing.assert_array_equal(posterior.mean, moments[..., :4])
    np.testing.assert_array_equal(posterior.logvar, np.clip(moments[..., 4:], -30, 20))
    assert np.asarray(posterior.logvar).min() == -30 and np.asarray(posterior.logvar).max() == 20
    wide = Posterior(jnp.full((1, 1, 100, 100, 4), 3.0), jnp.full((1, 1, 100, 100, 4), np.log(4.0)))
    drawn = np.asarray(wide.sample(jax.random.key(0)))
    assert abs(drawn.mean() - 3) < 0.05 and abs(drawn.std() - 2) < 0.05
    np.testing.assert_array_equal(drawn, wide.sample(jax.random.key(0)))
    assert (drawn != wide.sample(jax.random.key(1))).any()


def test_bfloat16_is_close_and_gives_float32(network):
    latents = reference_vae.latents(2, 2, 3)
    vae = Vae(tiny_vae.ARCHITECTURE, jnp.bfloat16)
    result = jax.jit(lambda params, x: vae.apply({"params": params}, x, method="decode"))(tiny_vae.params(), latents)
    assert result.dtype == jnp.float32
    error = np.abs(result - network["decode"](latents))
    assert error.max() > 1e-4 and np.sqrt(np.mean(error**2)) < 0.05


def test_every_parameter_names_axes_that_the_rules_know():
    init = Vae(tiny_vae.ARCHITECTURE).init
    boxed = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3)))["params"]
    leaves = jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
    for leaf in leaves:
        assert len(spec(leaf.names)) == leaf.value.ndim


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 0}, "at least 1"),
        ({"widths": (32, 32, 32)}, "4 positive multiples of groups = 32"),
        ({"widths": (16, 32, 32, 32)}, "multiples of groups"),
        ({"scaling_factor": 0.0}, "above 0"),
    ],
)
def test_bad_architectures(fields, message):
    with pytest.raises(InputError, match=message):
        VaeArchitecture(**fields)


@pytest.mark.parametrize("fields", [{"frames": 6}, {"frame_stride": 0}, {"frame_stride": 20}, {"side": 100}])
def test_bad_tilings(fields):
    with pytest.raises(InputError, match="give multiples"):
        Tiling(**fields)
