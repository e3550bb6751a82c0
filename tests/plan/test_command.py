"""`mpjax plan`: what it refuses, what it keeps, and a small step through the real TPU compiler."""

import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys
import types

import jax
import pytest
from jax.sharding import AbstractMesh

from mpjax import experiment
from mpjax.errors import InputError
from mpjax.interop.transformer_names import parameter_shapes
from mpjax.parallel.mesh import AXES, MeshShape
from mpjax.plan import command, row, store
from mpjax.plan.command import Request, plan
from mpjax.plan.row import DEFAULTS, Options, Row
from mpjax.plan.steps import lower_decode_step, lower_generate_step, tokens_of
from mpjax.plan.tables import sentence, table
from mpjax.training.trainable import partition
from tests.training.runs import ROOT

SMOKE = experiment.load("configs/framepack_f1_13b.py:smoke")
ROW = Row(
    topology="v6e:2x2",
    mesh="fsdp 4",
    remat="full",
    step="stage 1",
    weights="float32",
    chips=4,
    videos=4,
    segments=2,
    memory=32e9,
    arguments=3e9,
    temporaries=5e9,
    peak=8e9,
    useful=918e12,
    executed=1e15,
    moved={"all-gather": 2e9},
    collectives={"all-gather": 7},
    compute_seconds=0.5,
    kernels={"splash_mha_fwd": 60},
    compile_seconds=20.0,
)
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU compiler is not installed: pip install -r requirements-plan.txt",
)


@pytest.fixture
def compiler(monkeypatch):
    """A stand-in: every step is `ROW`; gives the list of those it was asked for."""
    asked = []

    def compile_row(experiment, topology, shape, step, segments, options):
        asked.append((experiment.model.remat, topology, shape, step, segments))
        return dataclasses.replace(ROW, step=step, memory=options.memory or ROW.memory)

    monkeypatch.setattr(store, "compile_row", compile_row)
    monkeypatch.setattr(store, "version", lambda name: "1")
    monkeypatch.setattr(command, "topology_devices", lambda name: [])
    return asked


def test_every_stage_and_generation_by_default_and_what_was_compiled_is_kept(compiler, tmp_path):
    request = Request(topologies=("v6e:2x2",), cache=tmp_path / "cache", out=tmp_path)
    said = []
    first = plan(SMOKE, request, said.append)
    assert [found.step for found in first] == ["stage 1", "stage 2", "generate"] and len(said) == 3
    meshes = [MeshShape(data=2, fsdp=2)] * 2 + [MeshShape(fsdp=2, context=2)]  # it is 32 wide and has two heads
    assert compiler == [("none", "v6e:2x2", m, found.step, 2) for m, found in zip(meshes, first, strict=True)]
    assert plan(SMOKE, request, said.append) == first and len(compiler) == 3
    plan(SMOKE, dataclasses.replace(request, segments=1), said.append)
    assert len(compiler) == 6  # another length is another program
    assert (tmp_path / "plan.md").read_text() == table(first)


def test_a_chip_stands_in_for_another_card(compiler, monkeypatch, tmp_path):
    """Rows are kept by the memory they are compared with; a program that uses the host's says how much of it."""
    request = Request(topologies=("v5p:1x1x1",), steps=("stage 1",), cache=tmp_path)
    for memory, fits in ((80e9, True), (8.8e9, False), (None, True)):
        (found,) = plan(SMOKE, dataclasses.replace(request, options=Options(memory=memory)), print)
        assert (found.memory, found.fits) == (memory or ROW.memory, fits)
    assert len(compiler) == 3
    monkeypatch.setattr(row, "topology_devices", lambda name: [])
    monkeypatch.setattr(row, "mesh_on", lambda devices, shape: AbstractMesh((1, 1, 1, 1), AXES))
    monkeypatch.setattr(row, "lower_train_step", lambda *_: Compiled())
    one = row.compile_row(SMOKE, "v5p:1x1x1", MeshShape(), "stage 1", 2, Options(memory=80e9))
    assert (one.memory, one.host) == (80e9, 7)
    assert "host" not in sentence(ROW) and "fits; 9 GB of the host" in sentence(dataclasses.replace(ROW, host=9e9))


@pytest.mark.parametrize(("name", "trained"), [("framepack_f1_lora", {"lora"}), ("framepack_f1_head", {"head"})])
def test_generation_reads_the_weights_that_its_run_leaves(name, trained):
    """What is trained in float32, as are the scales of adapters, and what is not in bfloat16."""
    run = experiment.load(f"configs/{name}.py:smoke")
    params = lower_generate_step(run, MeshShape().build()).args_info[0][0]
    paths = {tuple(key.key for key in path): leaf.dtype for path, leaf in jax.tree.leaves_with_path(params)}
    for path, dtype in paths.items():
        assert dtype == ("float32" if trained & set(path) else "bfloat16"), path
    assert any(trained & set(path) for path in paths)


def test_quantised_weights_are_arguments_in_8_bits():
    spec = {"format": "int8", "block": 16, "targets": "blocks/.*"}
    run = experiment.load("configs/framepack_f1_head.py:smoke", [f"--config.training.base_quantization={spec}"])
    params = lower_generate_step(run, MeshShape().build()).args_info[0][0]
    kernels = {key.key for path, _ in jax.tree.leaves_with_path(params["blocks"]) for key in path[-1:]}
    assert "values" in kernels and "kernel" not in kernels
    sizes = [leaf.dtype for path, leaf in jax.tree.leaves_with_path(params) if path[-1].key == "values"]
    assert {str(dtype) for dtype in sizes} == {"int8"}


def test_a_row_says_what_weights_are_held_in(monkeypatch):
    monkeypatch.setattr(row, "topology_devices", lambda name: [])
    monkeypatch.setattr(row, "mesh_on", lambda devices, shape: AbstractMesh((1, 1, 1, 1), AXES))
    for name in ("lower_generate_step", "lower_decode_step", "lower_train_step"):
        monkeypatch.setattr(row, name, lambda *_, **__: Compiled())
    head = "configs/framepack_f1_head.py:smoke"
    held, small = (
        experiment.load(head, flags)
        for flags in ([], ["--config.training.base_quantization={'format': 'fp8', 'block': 16}"])
    )
    away = Options(offload=True)

    def weights(run, step, options=DEFAULTS):
        return row.compile_row(run, "v5p:1x1x1", MeshShape(), step, 2, options).weights

    assert (weights(SMOKE, "stage 2"), weights(held, "stage 1"), weights(small, "generate")) == (
        "float32",
        "bfloat16",
        "fp8",
    )
    assert (weights(held, "decode"), weights(held, "decode", away)) == ("bfloat16", "in the host")
    assert weights(held, "generate", away) == "bfloat16"
    one = dataclasses.replace(ROW, step="decode", weights="in the host")
    assert "weights in the host, remat" in sentence(one) and "| decode | in the host |" in table([one])


def test_search_says_the_best_of_each_stage(compiler, tmp_path):
    said = []
    rows = plan(SMOKE, Request(topologies=("v6e",), search=True, steps=("stage 2",), cache=tmp_path), said.append)
    assert [found.step for found in rows] == ["stage 2"] and "smallest slice of v6e" in said[-1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"topologies": ("v6e",)}, "write CHIP:SHAPE, such as v5p:8x8x8"),
        ({"topologies": ("h100:8",)}, "chips are v5e, v5p, v6e"),
        ({"topologies": ("v6e:0x2",)}, "write CHIP:SHAPE"),
        ({"topologies": ("v6e:2x2",), "search": True}, "with --search it is one of v5e"),
        ({"topologies": ("v6e:2x2",), "steps": ("stage 3",)}, "one of stage 1, stage 2, generate, decode"),
        ({"topologies": ("v6e",), "search": True, "steps": ("generate",)}, "one of stage 1, stage 2"),
        ({"topologies": ("v6e:2x2",), "segments": 0}, "--segments is 0"),
        ({"topologies": ("v6e",), "search": True, "compiles": 0}, "--compiles is 0"),
        ({"topologies": ("v6e:2x2",), "mesh": "model=2"}, "mesh is 'model=2'"),
        ({"topologies": ("v6e:2x2",), "options": Options(memory=0.0)}, "--memory is 0: give the gigabytes"),
        ({"topologies": ("v6e",), "search": True, "options": Options(memory=8e10)}, "no effect on --search"),
        ({"topologies": ("v6e:2x2",), "options": Options(offload=True)}, "--offload is of decode: add --step=decode"),
    ],
)
def test_bad_flags_are_named(fields, words, compiler):
    with pytest.raises(InputError, match=words):
        plan(SMOKE, Request(**fields))
    assert not compiler


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install -r requirements-plan"):
        plan(SMOKE, Request(topologies=("v6e:2x2",)))


def test_a_row_in_words_and_in_a_table():
    words = sentence(ROW)
    for part in (
        "8 GB of 32 GB: 25%, fits",
        "all-gather 7 × = 2 GB",
        "step 0.50 s, MFU at most 50%",
        "splash_mha_fwd 60 ×",
    ):
        assert part in words
    lines = table([ROW, dataclasses.replace(ROW, error="no room")]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert (
        lines[2].endswith("| 8 GB | 25% of 32 GB | – | 2 GB | 0.50 s | 50% | 20 s |") and "does not compile" in lines[3]
    )


SMALL_STEP = [
    "--config=configs/framepack_f1_13b.py:smoke",
    "--topology=v5e:2x2",
    "--mesh=fsdp=2,tensor=2",
    "--step=stage 2",
    "--segments=2",
]


@pytest.fixture(scope="module")
def small_step(tmp_path_factory):
    """What the command says of a small step, and the folder where it says it."""
    folder = tmp_path_factory.mktemp("small_step")
    return plan_command(folder, *SMALL_STEP), folder


@needs_compiler
def test_a_small_step_through_the_tpu_compiler(small_step):
    """The command itself; 8 GB of bfloat16 would not be a test, but every kind of array and loop is in it."""
    said, folder = small_step
    assert "stage 2 on v5e:2x2, fsdp 2 × tensor 2, weights float32" in said and "all-gather" in said
    assert "| stage 2 | float32 | v5e:2x2 |" in (folder / "plan.md").read_text()


@needs_compiler
def test_what_waits_in_the_host_takes_no_memory_of_a_chip(small_step, tmp_path):
    """Averages of all parameters and two moments of the trained ones, four bytes each; the compiler pads arrays."""
    _, folder = small_step
    plan_command(tmp_path, *SMALL_STEP, "--config.training.host_state=both")
    here, there = (json.loads((place / "plan.json").read_text())["rows"][0] for place in (folder, tmp_path))
    size = command.count(SMOKE, "output_head")
    assert here["host"] == 0 and there["host"] >= 4 * (size.all + 2 * size.trained) / 4
    assert there["arguments"] + there["host"] == here["arguments"]


def test_a_tile_is_decoded_beside_the_weights():
    """480×832 in tiles of 32 × 32 latents; weights that the program does not read are arguments all the same."""
    small = ["dual_blocks=1", "single_blocks=1", "refiner_blocks=1", "heads=1", "memory=None"]
    flags = [f"--config.model.{field}" for field in small]
    run = experiment.load("configs/framepack_f1_head.py", flags)
    lowered = lower_decode_step(run, MeshShape().build())
    weights, vae, latents = lowered.args_info[0]
    assert latents.shape == (1, 5, 32, 32, 16)
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(vae)) == 246_478_803
    head = partition(parameter_shapes(run.model), "output_head")[0]
    size = sum(x.size for x in jax.tree.leaves(parameter_shapes(run.model)))
    trained = sum(x.size for x in jax.tree.leaves(head))
    held = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(weights))
    assert held == 2 * size + 2 * trained
    kept = lowered.as_text().split("func.func public @main(")[1].split(") -> ")[0].count("%arg")
    assert kept == len(jax.tree.leaves(lowered.args_info))
    assert lower_decode_step(run, MeshShape().build(), beside=False).args_info[0][0] is None
    whole = experiment.load("configs/framepack_f1_head.py", [*flags, "--config.data.vae_tiles=none"])
    assert lower_decode_step(whole, MeshShape().build()).args_info[0][2].shape == (1, 5, 60, 104, 16)
    with pytest.raises(InputError, match=r"set data\.vae"):
        lower_decode_step(experiment.load("configs/recall_tiny.py:smoke"), MeshShape().build())
    words = sentence(dataclasses.replace(ROW, step="decode", useful=0.0))
    assert "remat full: one tile" in words and "operations" not in words
    assert "| – | – | 20 s |" in table([dataclasses.replace(ROW, step="decode", useful=0.0)])


@needs_compiler
def test_blocks_wait_in_the_host_of_one_chip(tmp_path):
    """`remat=offload`: the inputs of two dual and three single blocks, their tokens by 32 numbers."""
    blocks = ["--config.model.dual_blocks=2", "--config.model.single_blocks=3"]
    arguments = ["--config=configs/framepack_f1_lora.py:smoke", "--topology=v5e:1x1", "--memory=80", "--step=stage 1"]
    said = plan_command(tmp_path, *arguments, "--segments=1", "--quick", "--config.model.remat=offload", *blocks)
    assert "stage 1 on v5e:1x1, one chip, weights bfloat16, remat offload" in said and "of 80 GB" in said
    (found,) = json.loads((tmp_path / "plan.json").read_text())["rows"]
    run = experiment.load("configs/framepack_f1_lora.py:smoke")
    tokens = tokens_of(run)
    kept = (2 + 3) * (tokens.latents + tokens.context) * run.model.width * 4
    assert kept <= found["host"] <= 2 * kept  # tiles are full, numbers may not be


def plan_command(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "mpjax", "plan", *arguments, f"--cache={folder}/cache", f"--out={folder}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        # The TPU compiler ends a process whose XLA_FLAGS have a flag that it does not know, as those of conftest.py.
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "XLA_FLAGS": ""},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


class Compiled:
    """A program that does nothing."""

    def compile(self):
        return self

    def memory_analysis(self):
        names = ("argument", "output", "alias", "temp", "generated_code")
        sizes = {f"{name}_size_in_bytes": 0 for name in names}
        return types.SimpleNamespace(**sizes, host_argument_size_in_bytes=3, host_temp_size_in_bytes=4)

    def as_text(self):
        return "ENTRY %main (x: f32[8]) -> f32[8] {\n  ROOT %x = f32[8]{0} parameter(0)\n}"


@pytest.mark.parametrize(("sizes", "share"), [((1, 16, 1, 1), 1), ((1, 4, 2, 2), 4), ((2, 4, 2, 1), 2)])
def test_chips_that_repeat_a_video_do_not_make_it_faster(sizes, share, monkeypatch):
    """One generated video is shared by context · tensor chips; in training every chip has work of its own."""
    monkeypatch.setattr(row, "topology_devices", lambda name: [])
    monkeypatch.setattr(row, "mesh_on", lambda devices, shape: AbstractMesh(sizes, AXES))
    for name in ("lower_generate_step", "lower_train_step"):
        monkeypatch.setattr(row, name, lambda *_: Compiled())
    drawn, trained = (row.compile_row(SMOKE, "v6e:4x4", MeshShape(), step, 2) for step in ("generate", "stage 1"))
    assert drawn.compute_seconds == drawn.executed / (share * 918e12)
    assert drawn.mfu == pytest.approx(share / 16)  # nothing is computed again
    assert trained.compute_seconds == trained.executed / (16 * 918e12)


class Lowered:
    """A program that the compiler refuses."""

    def __init__(self, words):
        self.words = words

    def compile(self):
        raise jax.errors.JaxRuntimeError(self.words)


def test_want_of_memory_is_a_row_and_other_errors_are_errors(monkeypatch):
    monkeypatch.setattr(row, "topology_devices", lambda name: [])
    monkeypatch.setattr(row, "mesh_on", lambda devices, shape: AbstractMesh((1, 4, 1, 1), AXES))
    words = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 40G of 31.25G."
    monkeypatch.setattr(row, "lower_train_step", lambda *_: Lowered(words))
    found = row.compile_row(SMOKE, "v6e:2x2", MeshShape(fsdp=4), "stage 1", 2)
    assert found.error == words and not found.fits and found.videos == 4 and found.mesh == "fsdp 4"
    monkeypatch.setattr(row, "lower_train_step", lambda *_: Lowered("INTERNAL: no idea"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="no idea"):
        row.compile_row(SMOKE, "v6e:2x2", MeshShape(fsdp=4), "stage 1", 2)


def test_quick_is_said_and_leaves_the_process_as_it_was(monkeypatch):
    quick = dataclasses.replace(ROW, quick=True)
    assert "optimised less" in sentence(quick) and "optimised less" not in sentence(ROW)
    assert table([quick]).endswith("| 20 s, quick |\n")
    monkeypatch.setattr(row, "topology_devices", lambda name: [])
    monkeypatch.setattr(row, "mesh_on", lambda devices, shape: AbstractMesh((1, 4, 1, 1), AXES))
    levels = []

    class Noting(Compiled):
        def compile(self):
            levels.append(jax.config.jax_optimization_level)
            return self

    monkeypatch.setattr(row, "lower_train_step", lambda *_: Noting())
    both = [Options(quick=quick) for quick in (True, False)]
    rows = [row.compile_row(SMOKE, "v6e:2x2", MeshShape(fsdp=4), "stage 1", 2, options) for options in both]
    assert [found.quick for found in rows] == [True, False]
    assert levels == ["O1", jax.config.jax_optimization_level] and levels[0] != levels[1]


def test_several_slices_are_drawn_and_quick_rows_are_kept_apart(compiler, monkeypatch, tmp_path):
    compile_one = store.compile_row

    def sized(experiment, topology, shape, step, segments, options):
        found = compile_one(experiment, topology, shape, step, segments, options)
        return dataclasses.replace(found, chips=shape.data * shape.fsdp, quick=options.quick)

    monkeypatch.setattr(store, "compile_row", sized)
    cache = tmp_path / "cache"
    request = Request(topologies=("v6e:2x2", "v6e:4x4"), steps=("stage 1",), cache=cache, out=tmp_path / "two")
    rows = plan(SMOKE, request, print)
    assert {p.name for p in (tmp_path / "two").iterdir()} == {"plan.json", "plan.md", "sent.png", "efficiency.png"}
    said = json.loads((tmp_path / "two/plan.json").read_text())
    assert [Row(**found) for found in said["rows"]] == rows and said["versions"]["libtpu"]
    one = dataclasses.replace(request, topologies=("v6e:2x2",), options=Options(quick=True), out=tmp_path / "one")
    assert [found.quick for found in plan(SMOKE, one, print)] == [True] and len(compiler) == 3
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"plan.json", "plan.md"}
