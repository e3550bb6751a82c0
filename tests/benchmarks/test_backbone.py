"""The command on a small network, and its pieces against NumPy and against the network itself."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import backbone, measuring, precision
from benchmarks.random_network import input_tokens, random_inputs, random_params
from mpjax import experiment
from mpjax.errors import InputError
from mpjax.models.flops import velocity_flops
from mpjax.models.memorypack import Denoiser

SMOKE = "configs/framepack_f1_13b.py:smoke"
SIZE = (4, 6)
KEYS = jax.random.split(jax.random.key(0))


@pytest.fixture(scope="module")
def network():
    """The denoiser of the command's smoke run in float32, its weights and its inputs."""
    arch = experiment.load(SMOKE).model
    return Denoiser(arch, 1.0), random_params(arch, KEYS[0], jnp.float32), random_inputs(arch, SIZE, KEYS[1])


# -- The command -------------------------------------------------------------------------------------------------------


def test_the_command_writes_what_it_measured(tmp_path, capsys):
    out = tmp_path / "results" / "a.json"
    arguments = [f"--config={SMOKE}", f"--out={out}", "--repeats=6", "--seed=3", "--config.model.dual_blocks=2"]
    assert backbone.main(arguments) == 0, capsys.readouterr()
    found = json.loads(out.read_text())
    arch = experiment.load(SMOKE, ["--config.model.dual_blocks=2"]).model
    assert found["command"] == "python -m benchmarks.backbone " + " ".join(arguments) and found["seed"] == 3
    assert found["machine"]["device"] == "cpu" and found["versions"]["jax"] == jax.__version__
    assert found["weights_bytes"] == 2 * found["parameters"] and found["latents"] == [9, 4, 6, 16]
    step, flops = found["step"], velocity_flops(arch, input_tokens(arch, SIZE))
    assert step["flops"] == {**flops, "total": sum(flops.values())} and step["finite"]
    seconds = step["seconds"]
    assert 0 < seconds["least"] <= seconds["ci95"][0] <= seconds["median"] <= seconds["ci95"][1] <= seconds["most"]
    np.testing.assert_allclose(step["tflops_per_second"], sum(flops.values()) / seconds["median"] / 1e12)
    assert step["planned_bytes"] > found["weights_bytes"]
    assert found["passed"] and len(found["precision"]["parts"]) == 7
    # bfloat16 it is: no part agrees to float32's rounding.
    assert all(row["passed"] and row["relative_l2"] > 2**-11 for row in found["precision"]["parts"].values())


def test_numbers_outside_the_tolerance_are_status_1(tmp_path, monkeypatch):
    monkeypatch.setattr(backbone, "measure", lambda *args, **rest: {"passed": False})
    assert backbone.main([f"--config={SMOKE}", f"--out={tmp_path / 'a.json'}"]) == 1
    assert json.loads((tmp_path / "a.json").read_text())["passed"] is False


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--repeats=5"], "--repeats is 5: give at least 6"),
        (["--config.model.depth=1"], "depth"),
        (["--out=/dev/null/a.json"], "cannot be written"),
    ],
)
def test_bad_input_is_refused_before_compute(tmp_path, capsys, monkeypatch, flags, words):
    monkeypatch.setattr(backbone, "measure", None)
    assert backbone.main([f"--config={SMOKE}", f"--out={tmp_path / 'a.json'}", *flags]) == 2
    assert words in capsys.readouterr().err


# -- Weights and inputs ------------------------------------------------------------------------------------------------


def test_no_weight_is_zero_and_no_two_layers_agree():
    arch = experiment.load(SMOKE, ["--config.model.dual_blocks=3"]).model
    params = random_params(arch, KEYS[0], jnp.bfloat16)
    for path, leaf in jax.tree.leaves_with_path(params):
        assert leaf.dtype == jnp.bfloat16
        values, kind = np.float32(leaf), path[-1].key
        expected = values.shape[-2] ** -0.5 if kind == "kernel" else 0.1
        assert np.abs(values).max() > 0 and 0.5 * expected < values.std() < 1.5 * expected, path
        assert abs(values.mean() - (kind == "scale")) < 6 * expected / values.size**0.5 + 0.01, path
        if "dual_blocks" in str(path):
            assert len({layer.tobytes() for layer in values}) == 3
    same, other = (random_params(arch, key, jnp.bfloat16) for key in (KEYS[0], KEYS[1]))
    jax.tree.map(np.testing.assert_array_equal, params, same)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), params, other)))


def test_the_inputs_are_those_of_framepack_f1_with_semanticpack():
    """ψ at 480 × 832 has the tokens of Memorize, 5 × 15 × 26; at 32 × 48 those of image and prompt, which are more."""
    arch = experiment.load("configs/framepack_f1_13b.py").model
    assert input_tokens(arch, (60, 104)).memory == 1950
    inputs = random_inputs(experiment.load(SMOKE).model, SIZE, KEYS[1])
    assert inputs.memory.tokens.shape == (1, 512 + 729, 32) and inputs.condition.image.shape[1] == 729
    assert inputs.history.frames.shape == (1, 19, *SIZE, 16) and int(inputs.condition.text_mask.sum()) == 256
    for leaf in (inputs.x_t, inputs.history.frames, inputs.history.reference, inputs.memory.tokens):
        assert 0.8 < float(leaf.std()) < 1.2


# -- Precision ---------------------------------------------------------------------------------------------------------


def test_the_parts_make_the_network(network):
    """A network of one dual and one single block, from `Denoiser.velocity` and from the parts."""
    denoiser, params, inputs = network
    outputs = precision.part_program(denoiser, "float32")(precision.first_layers(params), inputs)
    np.testing.assert_allclose(outputs["head"], jax.jit(denoiser.velocity)(params, *inputs), atol=2e-5)
    assert np.std(outputs["head"]) > 0.1


def test_a_part_reads_what_is_given(network):
    denoiser, params, inputs = network
    layers = precision.first_layers(params)
    program = precision.part_program(denoiser, "float32")
    reference = program(layers, inputs)
    changed = program(layers, inputs, reference | {"dual_block.latents": 2 * reference["dual_block.latents"]})
    rows = precision.differences(changed, reference)
    assert {name for name, row in rows.items() if row["relative_l2"] > 1e-5} == {"single_block"}


def test_differences_in_numpy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 50)), rng.normal(size=(2, 3, 50))
    row = precision.differences({"a": jnp.asarray(a, jnp.float32)}, {"a": jnp.asarray(b, jnp.float32)})["a"]
    np.testing.assert_allclose(row["relative_l2"], np.linalg.norm(a - b) / np.linalg.norm(b), rtol=1e-5)
    np.testing.assert_allclose(row["largest"], np.abs(a - b).max() / np.sqrt((b**2).mean()), rtol=1e-5)


@pytest.mark.parametrize(
    ("relative_l2", "largest", "passed"),
    [(0.015, 0.12, True), (0.016, 0.12, False), (0.015, 0.13, False), (float("nan"), 0.0, False)],
)
def test_the_tolerance_judges(relative_l2, largest, passed):
    good = {"relative_l2": 0.0, "largest": 0.0}
    found = precision.judged({"good": good, "other": {"relative_l2": relative_l2, "largest": largest}})
    assert found["parts"]["good"]["passed"] and found["parts"]["other"]["passed"] is passed
    assert found["passed"] is passed


# -- Time and memory ---------------------------------------------------------------------------------------------------


def test_warm_up_is_not_counted(monkeypatch):
    calls, durations = [], iter([90.0, 50.0, 3.0, 1.0, 2.0, 5.0, 4.0, 9.0, 7.0])
    now = [0.0]

    def call():
        calls.append(1)
        now[0] += next(durations)

    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])
    found = measuring.timed(call, 7)
    assert len(calls) == 9
    assert found == {"repeats": 7, "median": 4.0, "ci95": [1.0, 9.0], "least": 1.0, "most": 9.0}


def test_what_does_not_fit_is_refused():
    device = SimpleNamespace(device_kind="toy", memory_stats=lambda: {"bytes_limit": 10**9, "peak_bytes_in_use": 5})
    silent = SimpleNamespace(device_kind="cpu", memory_stats=lambda: None)
    measuring.check_memory("a step", 10**9, device)
    measuring.check_memory("a step", 10**15, silent)
    with pytest.raises(InputError, match=r"a step needs 1\.5 GB, but toy gives this process 1\.0 GB"):
        measuring.check_memory("a step", 3 * 10**9 // 2, device)
    assert measuring.peak_bytes(device) == 5 and measuring.peak_bytes(silent) is None


def test_planned_memory_has_arguments_and_results():
    program, seconds = measuring.compiled(jax.jit(lambda x: jnp.stack([x, 2 * x])), jnp.zeros(1000))
    assert 3 * 4000 <= measuring.planned_bytes(program) < 5 * 4000 and seconds > 0
