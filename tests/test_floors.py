"""Lower rooms never import upper ones (docs/architecture.md shows the same table)."""

import ast
from pathlib import Path

import pytest

import mpjax

ROOT = Path(mpjax.__path__[0])

# Ground first. Rooms of one floor do not import one another; the longest matching name decides.
FLOORS = [
    ["errors", "stopping"],
    [
        "compilation",
        "config",
        "diffusion",
        "markup",
        "parallel",
        "parameters",
        "progress",
        "provenance",
        "whole_files",
    ],
    ["drawing", "models", "training.nonfinite", "training.optimizer", "training.trainable"],
    ["interop", "training.curriculum"],
    ["codecs", "conditioning"],
    ["data"],
    ["experiment"],
    ["datasets", "weights"],
    ["generation", "interop.convert", "training"],
    ["api", "evaluation", "plan"],
    ["ablation", "demo"],
    ["verbs"],
    ["__init__", "__main__"],
]
FLOOR_OF = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
# `benchmarks` lies beside the package, above all of it.
FORBIDDEN = {"benchmarks", "pickle", "tensorflow", "torch"}
ALLOWED = {
    ("conditioning.pretrained", "torch"),  # the one place that runs PyTorch, where an extra has installed it
    ("verbs", "benchmarks"),  # `mpjax bench`, which needs a checkout
}


def room_of(module):
    """The room of `a.b.c` (without `mpjax.`)."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (room := ".".join(parts[:length])) in FLOOR_OF:
            return room
    raise AssertionError(f"mpjax.{module} is on no floor: add it to FLOORS and to docs/architecture.md")


def imports(source, modules):
    """Modules that a source imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules else node.module


def violations(sources):
    """Upward and sideways imports among {module: source}, as `a imports b`."""
    known = {f"mpjax.{name}".removesuffix(".__init__") for name in sources}
    found = []
    for module, source in sources.items():
        room = room_of(module)
        for target in imports(source, known):
            top = target.split(".")[0]
            if top in FORBIDDEN and (module, top) not in ALLOWED:
                found.append(f"{module} imports {target}")
            if target.startswith("mpjax."):
                other = room_of(target.removeprefix("mpjax."))
                if other != room and FLOOR_OF[other] >= FLOOR_OF[room]:
                    found.append(f"{module} imports {target}")
    return found


def test_imports_go_down():
    paths = sorted(ROOT.rglob("*.py"))
    assert len(paths) > 40
    sources = {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in paths}
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("models.rope", "from mpjax.training.step import make_train_step"),
        ("models.rope", "from mpjax import experiment"),
        ("models.rope", "from mpjax.data.batch import Batch"),  # sideways
        ("training.curriculum", "from mpjax.training.state import TrainState"),
        ("training.step", "def f():\n    from mpjax.generation import rollout"),
        ("errors", "import mpjax.config"),
        ("models.rope", "import torch.nn"),
        ("training.step", "from benchmarks.measuring import timed"),
    ],
)
def test_the_check_sees(module, line):
    sources = {name: "" for name in ("models.rope", "experiment", "training.curriculum", "training.state", "errors")}
    assert len(violations({**sources, module: line})) == 1


def test_every_room_of_the_table_exists():
    for room in FLOOR_OF:
        path = ROOT / room.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), room
