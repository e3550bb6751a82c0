"""Configs: every mistake is one sentence that names the field; what ships, loads."""

import dataclasses
import hashlib
import importlib
import json
import re
from pathlib import Path
from typing import ClassVar

import pytest
from ml_collections import ConfigDict

import configs
from mpjax import config, experiment
from mpjax.diffusion.forcing import Direct
from mpjax.diffusion.samplers import Euler, UniPC
from mpjax.errors import InputError
from mpjax.experiment import Experiment, fingerprint
from mpjax.models.bank_memory import Retrieval
from mpjax.models.segment_memory import MeanPool

SMOKE = f"{config.find('recall_tiny.py')}:smoke"
SHIPPED = sorted(p for p in Path(configs.__path__[0]).glob("*.py") if p.stem != "__init__")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square:
    kind: ClassVar[str] = "square"
    side: float = 1.0

    def __post_init__(self):
        if self.side <= 0:
            raise InputError(f"side is {self.side}: it must be above 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circle:
    kind: ClassVar[str] = "circle"
    radius: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    count: int
    name: str = ""
    flag: bool = False
    shape: Square | Circle = Square()
    other: Square | Circle | None = None
    frame: Square = Square()
    size: tuple[int, int] = (1, 2)
    steps: tuple[Circle, ...] = ()
    corners: tuple[tuple[int, int], ...] = ()
    depth: int | None = None


def build(**fields):
    return config.build(Picture, {"count": 1, **fields})


def test_build_fills_converts_and_nests():
    picture = build(shape={"kind": "circle", "radius": 2}, size=[3, 4], steps=[{"radius": 1.5}], depth=5)
    assert picture == Picture(count=1, shape=Circle(radius=2.0), size=(3, 4), steps=(Circle(radius=1.5),), depth=5)
    assert isinstance(picture.shape.radius, float)
    assert build(depth=None).depth is None
    assert build(shape={"side": 2}).shape == Square(side=2.0)  # the default's kind
    assert build(other={"kind": "square"}).other == Square() and build(other=None).other is None
    assert config.build(Picture, ConfigDict({"count": 2})).count == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cuont": 2}, r"config\.cuont is not a config field: did you mean count\?"),
        ({"zzz": 2}, r"config\.zzz is not a config field: known fields: count, name,"),
        ({"kind": "x"}, r"config\.kind is not a config field"),
        ({"count": 1.5}, r"config\.count is 1\.5: it must be a whole number"),
        ({"count": True}, r"config\.count is True: it must be a whole number"),
        ({"count": None}, r"config\.count is None"),
        ({"flag": 1}, r"config\.flag is 1: it must be a True or False"),
        ({"name": 3}, r"config\.name is 3: it must be a string"),
        ({"shape": {"kind": "oval"}}, r"config\.shape\.kind is 'oval': it must be one of circle, square"),
        ({"other": {"side": 2}}, r"config\.other\.kind is None: it must be one of circle, square"),
        (
            {"shape": {"kind": "circle", "side": 2}},
            r"config\.shape\.side is not .* of kind 'circle': known",
        ),
        ({"shape": {"radius": 2}}, r"config\.shape\.radius is not a config field of kind 'square': known"),
        ({"shape": 3}, r"config\.shape is 3: it must be a group of fields"),
        ({"frame": {"side": "wide"}}, r"config\.frame\.side is 'wide': it must be a number"),
        ({"frame": {"side": 0.0}}, r"config\.frame\.side is 0\.0: it must be above 0"),
        ({"frame": 3}, r"config\.frame is 3: it must be a group of fields"),
        ({"size": (1, 2, 3)}, r"config\.size is \(1, 2, 3\): it must have exactly 2 entries"),
        ({"size": 3}, r"config\.size is 3: it must be a pair of whole numbers"),
        ({"steps": [{}, {"radius": "x"}]}, r"config\.steps\[1\]\.radius is 'x'"),
        ({"steps": 3}, r"config\.steps is 3: it must be a list of groups of fields"),
        ({"corners": 3}, r"config\.corners is 3: it must be a list of pairs of whole numbers"),
        ({"corners": [3]}, r"config\.corners\[0\] is 3: it must be a pair of whole numbers"),
        ({"depth": "deep"}, r"config\.depth is 'deep': it must be a whole number"),
    ],
)
def test_mistakes_are_named(fields, said):
    with pytest.raises(InputError, match=f"^{said}"):
        build(**fields)


def test_a_required_field_is_missed():
    with pytest.raises(InputError, match=r"^config\.count is missing: set it to a whole number$"):
        config.build(Picture, {})


def test_to_dict_is_the_inverse_of_build():
    picture = build(shape={"kind": "circle", "radius": 2}, steps=[{"radius": 1.5}])
    values = config.to_dict(picture)
    assert values["shape"] == {"kind": "circle", "radius": 2.0} and values["size"] == [1, 2]
    assert config.build(Picture, values) == picture


# -- Files -----------------------------------------------------------------------------------------------------------


def arguments():
    """Each shipped file with each argument that its docstring names, and without."""
    for path in SHIPPED:
        text = importlib.import_module(f"configs.{path.stem}").__doc__
        named = set(re.findall(rf"{path.name}:(\w+)", text))
        for line in re.findall(r"Arguments: .*(?:\n.*)?", text):
            named |= set(re.findall(r"`(\w+)`", line))
        yield from [(path, ""), *((path, f":{name}") for name in sorted(named))]


@pytest.mark.parametrize(("path", "argument"), list(arguments()), ids=lambda x: x.stem if isinstance(x, Path) else x)
def test_every_shipped_config_loads_and_survives_json(path, argument):
    loaded = experiment.load(f"{path}{argument}")
    stored = json.dumps(config.to_dict(loaded))  # as run.json holds it
    assert config.build(Experiment, json.loads(stored)) == loaded


def test_the_list_of_arguments_is_not_empty():
    assert {"", ":smoke", ":framepack"} <= {argument for path, argument in arguments() if path.stem == "recall_tiny"}


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("--config.seed=7", "seed", 7),
        ("--config.training.batch_size=4", "training.batch_size", 4),
        ("--config.training.micro_batches=2", "training.micro_batches", 2),  # a field the file leaves at its default
        ("--config.mesh.data=4", "mesh.data", 4),  # a group the file leaves out
        ("--config.training.ema_decay=1", "training.ema_decay", 1.0),
        ("--config.model.framepack.rope_layout=framepack_f1", "model.framepack.rope_layout", "framepack_f1"),
        ("--config.model.rope_axes=(16,8,8)", "model.rope_axes", (16, 8, 8)),
        ("--config.model.memory=None", "model.memory", None),
        ("--config.model.memory.residual=False", "model.memory.residual", False),
        ("--config.model.memory.squeeze=B", "model.memory.squeeze", "B"),
        ("--config.model.memory.kind=mean_pool", "model.memory", MeanPool(patch=(2, 4, 4), depth=1, heads=2)),
        ("--config.model.memory.kind=retrieval", "model.memory", Retrieval(patch=(2, 4, 4), depth=1, heads=2)),
        ("--config.sampler.steps=7", "sampler", Euler(steps=7)),
        ("--config.sampler.kind=unipc", "sampler", UniPC(steps=10)),
        ("--config.sampler.shift=None", "sampler.shift", None),
        ("--config.classifier_free.scale=2", "classifier_free.scale", 2.0),
    ],
)
def test_any_field_can_be_overridden(override, field, value):
    loaded = experiment.load(SMOKE, [override])
    for name in field.split("."):
        loaded = getattr(loaded, name)
    assert loaded == value and type(loaded) is type(value)


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("--config.training.stages.0.steps=40", "steps", 40),
        ("--config.training.stages[0].steps=40", "steps", 40),
        ("--config.training.stages.0.optimizer.learning_rate=0.5", "optimizer.learning_rate", 0.5),
        ("--config.training.stages.0.forcing.kind=direct", "forcing", Direct()),  # a group the file leaves out
        ("--config.training.stages[0].curriculum[1][1]=4", "curriculum", ((0, 2), (1, 4), (2, 4), (3, 5), (5, 6))),
        ("--config.training.stages.0.curriculum=[(0,6)]", "curriculum", ((0, 6),)),
    ],
)
def test_an_element_of_a_list_is_named_by_its_number(override, field, value):
    plain = experiment.load(SMOKE).training.stages[0]
    stage = experiment.load(SMOKE, [override]).training.stages[0]
    assert dataclasses.replace(stage, **{(name := field.split(".")[0]): getattr(plain, name)}) == plain
    for name in field.split("."):
        stage = getattr(stage, name)
    assert stage == value


def test_an_override_of_an_element_leaves_the_others(tmp_path):
    path = tmp_path / "shared.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "STAGE = dict(curriculum=[(0, 1)], steps=1)\n"
        "def get_config(): return ConfigDict(dict(stages=(STAGE, STAGE)))\n"
    )
    stages = config.load(str(path), ["--config.stages.1.steps=9", "--config.stages.1.curriculum.0.1=7"]).stages
    assert stages[0] == {"curriculum": [(0, 1)], "steps": 1} and stages[1] == {"curriculum": [[0, 7]], "steps": 9}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "--config.training.stages.1.steps=9",
            r"config\.training\.stages is a list, and 1 is no .* --config\.training\.stages\.0$",
        ),
        ("--config.training.stages.steps=9", r"config\.training\.stages is a list, and steps is no element of it: "),
        ("--config.training.stages.0.stps=9", r"config\.training\.stages\[0\]\.stps is not .* did you mean steps\?"),
        ("--config.seeed=1", r"config\.seeed is not a config field: did you mean seed\?"),
        ("--config.training.batchsize=1", r"config\.training\.batchsize is not .*did you mean batch_size\?"),
        ("--config.seed=x", r"config\.seed is 'x': it must be a whole number"),
        ("--config.seed=1.5", r"config\.seed is 1\.5: it must be a whole number"),
        ("--config.seed.x=1", r"config\.seed is \{'x': 1\}: it must be a whole number"),
        ("--config.sampler=5", r"config\.sampler is 5: it must be a group of fields"),
        ("--config.sampler.kind=heun", r"config\.sampler\.kind is 'heun': it must be one of euler, unipc"),
        ("--config.sampler.variant=bh2", r"config\.sampler\.variant is not a config field of kind 'euler'"),
        ("--config.sampler.shift=0", r"config\.sampler\.shift is 0\.0: it must be above 0, or None"),
        ("--config.classifier_free.scale=0", r"config\.classifier_free\.scale is 0: it must be at least 1"),
        ("--seed=1", "--seed=1 is no flag of this command"),
        ("--config.seed", r"--config\.seed is no flag of this command"),
        ("--config.training.micro_batches=3", r"config\.training\.micro_batches is 3: it must divide batch_size = 32"),
        ("--config.training.micro_batches=0", r"config\.training\.micro_batches is 0"),
        ("--config.training.host_state=ema", r"config\.training\.host_state is 'ema': it must be none, averages"),
        ("--config.training.sample_every=-1", r"config\.training\.sample_every is -1"),
        ("--config.training.segments=5", r"config\.training\.stages\[0\]\.curriculum goes beyond"),
        ("--config.mesh.fsdp=0", r"config\.mesh\.fsdp is 0"),
        ("--config.model.heads=0", r"config\.model\.heads is 0: it must be at least 1$"),
        ("--config.model.single_blocks=0", r"config\.model\.single_blocks is 0: it must be at least 1$"),
        ("--config.model.mlp_ratio=0", r"config\.model\.mlp_ratio is 0\.0: it must be above 0$"),
        ("--config.model.encoders.depth=-1", r"config\.model\.encoders\.depth is -1: it must be at least 0$"),
        ("--config.model.patch=3", r"config\.model\.patch is 3: it must divide the latents' 8 × 8"),
        ("--config.model.channels=4", r"config\.model\.channels is 4, but data\.world has channels \(RGB\) = 3"),
        (
            "--config.model.memory.kind=lstm",
            r"config\.model\.memory\.kind is 'lstm': it must be one of first_seg",
        ),
        ("--config.model.memory.squeeze=D", r"config\.model\.memory\.squeeze is 'D': it must be one of A, B, C"),
        ("--config.model.memory.top_k=2", r"config\.model\.memory\.top_k is not .* of kind 'semanticpack'"),
        ("--config.model.memory.heads=3", r"config\.model\.memory\.heads is 3"),
        ("--config.model.memory.window=6", r"config\.model\.memory\.window is 6"),
        ("--config.model.encoders=None", r"config\.model\.encoders is None"),
        (
            "--config.model.framepack.rope_layout=framepack_f0",
            r"config\.model\.framepack\.rope_layout is 'framepack_f0', which only generates",
        ),
    ],
)
def test_overrides_are_checked(override, said):
    with pytest.raises(InputError, match=f"^{said}"):
        experiment.load(SMOKE, [override])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "height=50",
            r"config\.data\.height is 50: it must be a multiple of 8, data\.space_factor 4 times model\.patch 2",
        ),
        ("width=4", r"config\.data\.width is 4: it must be a multiple of 8, "),
        ("fps=0", r"config\.data\.fps is 0: it must be at least 1$"),
        ("validation_fraction=1", r"config\.data\.validation_fraction is 1\.0: it must lie in"),
    ],
)
def test_fields_of_clips_are_checked(override, said):
    with pytest.raises(InputError, match=f"^{said}"):
        experiment.load(f"{config.find('clips_tiny.py')}:smoke", [f"--config.data.{override}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config(:", "invalid syntax"),
        ("import no_such_module", "No module named"),
        ("x = 1", "it has no get_config: write a function of this name"),
        ("def get_config(): raise ValueError('not\\n like this')", "not like this"),
        ("def get_config(): return 5", r"returned int; it must return an ml_collections\.ConfigDict"),
        ("def get_config(): return undefined", "undefined"),
        ("def get_config(): [dict(steps=1)][0].steps = 2", r'write \["steps"\]'),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, said):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^{path}: .*{said}"):
        config.load(str(path))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.py does not exist"):
        config.load(str(tmp_path / "nothing.py"))
    (tmp_path / "config.txt").write_text("")
    with pytest.raises(InputError, match=r"config\.txt is no Python file"):
        config.load(str(tmp_path / "config.txt"))
    with pytest.raises(InputError, match=r"nothing\.py is not among the shipped configs"):
        config.find("nothing.py")


def test_fingerprint_ignores_only_what_decides_nothing():
    same = ["--config.training.log_every=3", "--config.training.keep_checkpoints=9", "--config.processes.count=4"]
    same += ["--config.training.host_state=both"]
    different = ["--config.seed=1", "--config.training.ema_decay=0.5", "--config.model.mlp_ratio=2.0"]
    different += ["--config.sampler.kind=unipc", "--config.sampler.steps=9", "--config.classifier_free.scale=2"]
    mark = fingerprint(experiment.load(SMOKE))
    assert {fingerprint(experiment.load(SMOKE, [override])) for override in same} == {mark}
    assert len({mark, *(fingerprint(experiment.load(SMOKE, [override])) for override in different)}) == 7


def test_direct_forcing_without_fields_is_the_same_run_as_ever():
    path = f"{config.find('drift_tiny.py')}:direct"
    loaded = experiment.load(path)
    values = config.to_dict(loaded)
    (stage,) = values["training"]["stages"]
    stage.pop("repeat")
    stage["forcing"] = {"kind": "direct"}
    for name in experiment.FREE_FIELDS:
        values["training"].pop(name)
    values.pop("mesh"), values.pop("processes"), values.pop("classifier_free"), values["sampler"].pop("kind")
    for name in ("nonfinite", *experiment.BASE_FIELDS):
        values["training"].pop(name)
    values["data"]["world"].pop("anchor"), values["data"]["world"].pop("turn")
    assert fingerprint(loaded) == hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def test_runs_from_before_a_field_existed_go_on():
    """Descriptions without the sampler's kind and without guidance mean what they meant, and have the same mark."""
    loaded = experiment.load(SMOKE)
    values = config.to_dict(loaded)
    assert values["sampler"].pop("kind") == "euler" and values.pop("classifier_free") == {"scale": 1.0, "rescale": 0.0}
    world = values["data"]["world"]
    assert world.pop("anchor") is False and world.pop("turn") == 0.0
    assert config.build(Experiment, values) == loaded
    for name in experiment.FREE_FIELDS:
        values["training"].pop(name)
    values.pop("mesh"), values.pop("processes")
    assert [stage.pop("repeat") for stage in values["training"]["stages"]] == [1]
    assert values["training"].pop("nonfinite") == {"kind": "stop"}
    assert [values["training"].pop(name) for name in ("lora", "base_dtype", "base_quantization")] == [None] * 3
    assert fingerprint(loaded) == hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def test_runs_on_clips_from_before_the_autoencoder_go_on():
    loaded = experiment.load("configs/clips_tiny.py:smoke")
    values = config.to_dict(loaded)
    assert [values["data"].pop(name) for name in ("vae", "vae_tiles", "encoders")] == ["", "decode", ""]
    assert values["data"].pop("buckets") == [] and values["data"].pop("shots") and values["data"].pop("filters")
    assert [values["data"].pop(name) for name in ("mixture", "text_dropout")] == [[], 0.0]
    assert values["sampler"].pop("kind") == "euler" and values.pop("classifier_free")["scale"] == 1.0
    assert [stage.pop("repeat") for stage in values["training"]["stages"]] == [1, 1]
    assert values["training"].pop("nonfinite") == {"kind": "stop"}
    assert [values["training"].pop(name) for name in ("lora", "base_dtype", "base_quantization")] == [None] * 3
    assert values["training"]["stages"][1]["forcing"].pop("estimate") == {"kind": "loss"}
    assert [values["training"]["stages"][1]["forcing"].pop(name) for name in ("steps", "clean_mix")] == [1, 0.0]
    for name in experiment.FREE_FIELDS:
        values["training"].pop(name)
    values.pop("mesh"), values.pop("processes")
    assert fingerprint(loaded) == hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
    tiles = experiment.load("configs/clips_tiny.py:smoke", ["--config.data.vae_tiles=both"])
    assert fingerprint(tiles) != fingerprint(loaded)
