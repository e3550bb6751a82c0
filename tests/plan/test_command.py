"""`mpjax plan`: what it refuses, what it keeps, and a small step through the real TPU compiler."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import types

import jax
import pytest
from jax.sharding import AbstractMesh

from mpjax import experiment
from mpjax.errors import InputError
from mpjax.parallel.mesh import AXES, MeshShape
from mpjax.plan import command, row, store
from mpjax.plan.command import Request, plan
from mpjax.plan.row import Row
from mpjax.plan.tables import sentence, table
from tests.training.runs import ROOT

SMOKE = experiment.load("configs/framepack_f1_13b.py:smoke")
ROW = Row(
    topology="v6e:2x2",
    mesh="fsdp 4",
    remat="full",
    step="stage 1",
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

    def compile_row(experiment, topology, shape, step, segments, quick):
        asked.append((experiment.model.remat, topology, shape, step, segments))
        return dataclasses.replace(ROW, step=step)

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
        ({"topologies": ("v6e:2x2",), "steps": ("stage 3",)}, "one of stage 1, stage 2, generate"),
        ({"topologies": ("v6e",), "search": True, "steps": ("generate",)}, "one of stage 1, stage 2"),
        ({"topologies": ("v6e:2x2",), "segments": 0}, "--segments is 0"),
        ({"topologies": ("v6e",), "search": True, "compiles": 0}, "--compiles is 0"),
        ({"topologies": ("v6e:2x2",), "mesh": "model=2"}, "mesh is 'model=2'"),
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
    assert lines[2].endswith("| 8 GB | 25% | 2 GB | 0.50 s | 50% | 20 s |") and "does not compile" in lines[3]


@needs_compiler
def test_a_small_step_through_the_tpu_compiler(tmp_path):
    """The command itself; 8 GB of bfloat16 would not be a test, but every kind of array and loop is in it."""
    arguments = ["--config=configs/framepack_f1_13b.py:smoke", "--topology=v5e:2x2", "--mesh=fsdp=2,tensor=2"]
    arguments += ["--step=stage 2", "--segments=2", f"--cache={tmp_path}/cache", f"--out={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "mpjax", "plan", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        # The TPU compiler ends a process whose XLA_FLAGS have a flag that it does not know, as those of conftest.py.
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "XLA_FLAGS": ""},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "stage 2 on v5e:2x2, fsdp 2 × tensor 2" in done.stdout and "all-gather" in done.stdout
    assert "| stage 2 | v5e:2x2 |" in (tmp_path / "plan.md").read_text()


class Compiled:
    """A program that does nothing."""

    def compile(self):
        return self

    def memory_analysis(self):
        names = ("argument", "output", "alias", "temp", "generated_code")
        return types.SimpleNamespace(**{f"{name}_size_in_bytes": 0 for name in names})

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
    rows = [row.compile_row(SMOKE, "v6e:2x2", MeshShape(fsdp=4), "stage 1", 2, quick) for quick in (True, False)]
    assert [found.quick for found in rows] == [True, False]
    assert levels == ["O1", jax.config.jax_optimization_level] and levels[0] != levels[1]


def test_several_slices_are_drawn_and_quick_rows_are_kept_apart(compiler, monkeypatch, tmp_path):
    compile_one = store.compile_row

    def sized(experiment, topology, shape, step, segments, quick):
        found = compile_one(experiment, topology, shape, step, segments, quick)
        return dataclasses.replace(found, chips=shape.data * shape.fsdp, quick=quick)

    monkeypatch.setattr(store, "compile_row", sized)
    cache = tmp_path / "cache"
    request = Request(topologies=("v6e:2x2", "v6e:4x4"), steps=("stage 1",), cache=cache, out=tmp_path / "two")
    rows = plan(SMOKE, request, print)
    assert {p.name for p in (tmp_path / "two").iterdir()} == {"plan.json", "plan.md", "sent.png", "efficiency.png"}
    said = json.loads((tmp_path / "two/plan.json").read_text())
    assert [Row(**found) for found in said["rows"]] == rows and said["versions"]["libtpu"]
    one = dataclasses.replace(request, topologies=("v6e:2x2",), quick=True, out=tmp_path / "one")
    assert [found.quick for found in plan(SMOKE, one, print)] == [True] and len(compiler) == 3
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"plan.json", "plan.md"}
