"""Kernels in 8 bits against NumPy's float64 and closed forms; what layers, gradients and memory make of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.models import lora, quantization
from mpjax.models.layers import Dense
from mpjax.models.lora import Lora
from mpjax.models.memorypack import Denoiser
from mpjax.models.quantization import FORMATS, Quantization
from mpjax.parameters import merge, parameter_path
from tests.quantized import entry_of, quantized
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch

FP8_VALUES = np.arange(256, dtype=np.uint8).view(FORMATS["fp8"].dtype).astype(np.float64)
FP8_VALUES = np.unique(FP8_VALUES[np.isfinite(FP8_VALUES)])


def kernel(inputs=37, outputs=11, seed=0):
    """Numbers over four decades, so that blocks have different scales and some float8 values are subnormal."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-3, 1, (inputs, outputs))
    return (rng.choice([-1, 1], sizes.shape) * sizes).astype(np.float32)


@pytest.mark.parametrize("block", [1, 2, 8, 37, 64])
@pytest.mark.parametrize("name", FORMATS)
def test_the_nearest_value_of_each_block(name, block):
    """Every block apart, in float64, by search over all values of the format."""
    spec, w = Quantization(format=name, block=block), kernel()
    entry = entry_of(spec, w)
    values, scales = (np.asarray(entry[key]).astype(np.float64) for key in ("values", "scales"))
    back = np.asarray(quantization.dequantize(entry), np.float64)
    known = np.arange(-127.0, 128.0) if name == "int8" else FP8_VALUES
    step = spec.block_of(37)
    assert step == {1: 1, 2: 2, 8: 8, 37: 37, 64: 37}[block] and scales.shape == (-(-37 // step), 11)
    for start in range(0, 37, step):
        rows, scale = slice(start, start + step), scales[start // step]
        exact = np.abs(w[rows].astype(np.float64)).max(0) / known.max()
        np.testing.assert_allclose(scale, exact, rtol=2e-7)
        wanted = w[rows].astype(np.float64)
        nearest = np.abs(wanted[..., None] - known * scale[:, None]).min(-1)
        error = np.abs(back[rows] - wanted)
        np.testing.assert_allclose(error, nearest, atol=1e-6 * np.abs(wanted).max(), rtol=0)
        bound = scale / 2 if name == "int8" else np.maximum(2.0**-4 * np.abs(wanted), 2.0**-10 * scale)
        assert (error <= bound * (1 + 1e-4)).all()
        assert np.abs(values[rows]).max() == known.max()  # the whole range is used
    assert np.abs(back - w).max() > 0 or block == 1


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_exact(name):
    """Zeros, weights that the format has, and the sign of everything; bfloat16 is read as it is."""
    spec = Quantization(format=name, block=4)
    known = np.arange(-127.0, 128.0) if name == "int8" else FP8_VALUES
    rng = np.random.default_rng(0)
    w = (rng.choice(known, (12, 5)) * 2.0**-9).astype(np.float32)
    w[::4] = known.max() * 2.0**-9  # every block has the largest value, so that its scale is 2^-9
    w[4:8, 2] = 0.0
    assert np.asarray(quantization.dequantize(entry_of(spec, w))).tobytes() == w.tobytes()
    half = kernel().astype(jnp.bfloat16)
    same = [entry_of(spec, x) for x in (half, half.astype(np.float32))]
    assert all(same[0][key].tobytes() == same[1][key].tobytes() for key in same[0])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(name, bad):
    w = kernel(8, 2)
    w[5, 1] = bad
    back = np.asarray(quantization.dequantize(entry_of(Quantization(format=name, block=4), w)))
    expected = np.ones((8, 2), bool)
    expected[4:, 1] = False
    np.testing.assert_array_equal(np.isfinite(back), expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_is_that_of_the_kernel_it_stands_for(name, dtype):
    spec, w = Quantization(format=name, block=8), kernel(30, 7)
    entry, bias = entry_of(spec, w), jnp.arange(7.0)
    x = jax.random.normal(jax.random.key(0), (5, 30)).astype(dtype)
    layer = Dense(7, dtype=dtype)
    given = layer.apply({"params": {"quantized": entry, "bias": bias}}, x)
    plain = {"kernel": quantization.dequantize(entry), "bias": bias}
    assert given.dtype == dtype and given.tobytes() == layer.apply({"params": plain}, x).tobytes()


@pytest.fixture(scope="module")
def network():
    """Two blocks of a kind: (denoiser, batch, parameters)."""
    denoiser = Denoiser(tiny_architecture(dual_blocks=2, single_blocks=2, remat="full"))
    batch = tiny_batch(denoiser.architecture)
    return denoiser, batch, perturbed_params(denoiser, batch)


@pytest.mark.parametrize("name", ["int8", pytest.param("fp8", marks=pytest.mark.slow)])
def test_the_network_and_the_gradient_of_an_adapter(network, name):
    """Scanned and rematerialised, all is as beside the kernels that the entries stand for."""
    denoiser, batch, params = network
    spec = Quantization(format=name, block=8)
    eight, plain = quantized(spec, params)
    targets = Lora(rank=2, alpha=2.0)
    key = jax.random.key(0)
    adapter = merge(lora.init_adapter(targets, key, params), lora.scales(targets, params))
    adapter = jax.tree.map(lambda x: x + 0.1, adapter)

    @jax.jit
    def run(adapter, base):
        def loss(adapter):
            y = denoiser.module.apply(
                {"params": merge(adapter, base)}, batch.first_prompts, batch.reference, batch.segments[:, 0]
            )
            return jnp.square(y).mean(), y

        return jax.value_and_grad(loss, has_aux=True)(adapter)

    (_, y), grad = run(adapter, eight)
    (_, expected), wanted = run(adapter, plain)
    (_, unquantized), _ = run(adapter, params)
    np.testing.assert_allclose(y, expected, atol=1e-6, rtol=0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grad, wanted)
    error = np.abs(y - unquantized).max()
    assert {"int8": 1e-4, "fp8": 1e-3}[name] < error < {"int8": 0.05, "fp8": 0.5}[name]


def test_what_is_quantised(network):
    """The large layers of the blocks, with the kernels' logical axes; nothing else changes."""
    denoiser, batch, params = network
    args = (jax.random.key(0), batch.first_prompts, batch.reference, batch.segments[:, 0])
    boxed = jax.eval_shape(denoiser.init, *args)
    spec = Quantization(block=8)
    shapes = quantization.quantized_shapes(spec, boxed)
    before = {parameter_path(path): leaf for path, leaf in jax.tree.leaves_with_path(nn.unbox(boxed))}
    after = {parameter_path(path): leaf for path, leaf in jax.tree.leaves_with_path(nn.unbox(shapes))}
    gone = {path.removesuffix("/kernel") for path in before.keys() - after.keys()}
    assert len(gone) == 17 and all(path.startswith("blocks/") and "norm" not in path for path in gone)
    for path in gone:
        stack, inputs, outputs = before[f"{path}/kernel"].shape
        values, scales = after[f"{path}/quantized/values"], after[f"{path}/quantized/scales"]
        assert (values.shape, values.dtype) == ((stack, inputs, outputs), jnp.int8)
        assert (scales.shape, scales.dtype) == ((stack, inputs // 8, outputs), jnp.float32)
    assert before.items() - after.items() == {(f"{path}/kernel", before[f"{path}/kernel"]) for path in gone}
    up = shapes["blocks"]["dual_blocks"]["ff"]["up"]["quantized"]
    assert up["values"].names == up["scales"].names == ("layers", "embed", "mlp")
    real = jax.tree.map(jnp.shape, quantized(spec, params)[0])
    assert jax.tree.map(jnp.shape, nn.unbox(shapes)) == real


def temporaries(blocks, params_of, gradient):
    """Bytes that a compiled velocity, or the gradient of an adapter, takes besides its arguments."""
    arch = tiny_architecture(
        heads=4,
        head_dim=64,
        rope_axes=(16, 24, 24),
        dual_blocks=blocks,
        single_blocks=blocks,
        remat="full",
        memory=None,
    )
    denoiser, batch = Denoiser(arch), tiny_batch(arch, batch=1)
    args = (batch.first_prompts, batch.reference, batch.segments[:, 0])
    spec = Lora(rank=1, targets="blocks/.*/to_q")
    shapes = nn.unbox(jax.eval_shape(denoiser.init, jax.random.key(0), *args))
    params = params_of(shapes)
    adapter = jax.eval_shape(
        lambda: merge(lora.init_adapter(spec, jax.random.key(0), shapes), lora.scales(spec, shapes))
    )

    def loss(adapter, params):
        return jnp.square(denoiser.module.apply({"params": merge(adapter, params)}, *args)).mean()

    program = jax.jit(jax.grad(loss) if gradient else loss)
    return program.lower(adapter, params).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("gradient", [False, True])
def test_one_block_is_multiplied_out_at_a_time(gradient):
    """What a program holds besides its arguments does not grow by the kernels of a block with every further one."""
    spec = Quantization()
    one_block = 4 * 256**2 * (24 + 12)  # a dual and a single block, float32
    grown = [temporaries(n, lambda shapes: quantization.quantized_shapes(spec, shapes), gradient) for n in (2, 6)]
    assert grown[1] - grown[0] < 0.1 * 4 * one_block
    assert grown[1] < 1.5 * one_block


def test_how_it_is_written():
    assert Quantization.parse("int8") == Quantization(format="int8")
    assert Quantization.parse("fp8:128") == Quantization(format="fp8", block=128)
    pattern = "blocks/(?:dual_blocks|.*)/to_q"  # with a colon of its own
    assert Quantization.parse(f"int8:32:{pattern}") == Quantization(format="int8", block=32, targets=pattern)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Quantization(format="int4"), "format is 'int4': it must be one of int8, fp8"),
        (lambda: Quantization(block=0), "block is 0: it must be at least 1"),
        (lambda: Quantization(targets="("), "no regular expression"),
        (lambda: Quantization.parse("int8:"), "write int8 or fp8"),
        (lambda: Quantization.parse("8"), "--quantize is '8': write int8 or fp8"),
        (lambda: Quantization.parse(""), "--quantize is '': write int8 or fp8"),
        (lambda: Quantization.parse("int8:0"), "--quantize is 'int8:0': block is 0"),
        (
            lambda: quantization.quantized_shapes(Quantization(targets="to_x"), {"a": {"kernel": jnp.ones((2, 2))}}),
            "'to_x', which is no module: modules are a",
        ),
    ],
)
def test_what_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
