"""The README and the manual of data name only commands, flags, fields and files that exist."""

import dataclasses
import fnmatch
import re
import shlex
import types
import typing
from pathlib import Path

from mpjax import experiment
from mpjax.__main__ import parser
from mpjax.training.curriculum import Stage

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DATA = (ROOT / "docs" / "data.md").read_text()
COMMANDS = re.findall(r"^python -m mpjax (.*)$", README + DATA, re.MULTILINE)


def dataclasses_of(hint):
    """The dataclasses an annotation allows."""
    if isinstance(hint, types.UnionType):
        return [cls for option in typing.get_args(hint) for cls in dataclasses_of(option)]
    return [hint] if dataclasses.is_dataclass(hint) else []


def has_field(cls, path):
    name, *rest = path
    hints = typing.get_type_hints(cls)
    return name in hints and (not rest or any(has_field(inner, rest) for inner in dataclasses_of(hints[name])))


def test_commands_parse():
    assert len(COMMANDS) >= 9
    for command in COMMANDS:
        args, overrides = parser().parse_known_args(shlex.split(command))
        assert all(re.fullmatch(r"--config\.\w+(\.\w+)*=.+", override) for override in overrides), command
        if getattr(args, "config", None) is not None:  # `data inspect` takes one or none
            assert (ROOT / args.config.partition(":")[0]).is_file(), command


def test_fields_of_the_table_exist():
    rows = re.findall(r"^\| (`[a-z][^|]*) \|", README.partition("| field | means |")[2], re.MULTILINE)
    assert len(rows) >= 15
    for row in rows:
        prefix = ""
        for name in re.findall(r"`([\w.]+)`", row):
            path = prefix + name if name.startswith(".") else name
            prefix = path.rpartition(".")[0]
            assert path.endswith(".kind") or has_field(experiment.Experiment, path.split(".")), path
    for name in ("steps", "forcing", "trainable", "optimizer", "curriculum", "given"):
        assert has_field(Stage, [name])


def test_linked_files_exist():
    assert [link for link in re.findall(r"\]\(([^)#:]+)\)", README) if not (ROOT / link).is_file()] == []
    assert all((ROOT / path).is_dir() for path in re.findall(r"`([\w/]+/)`", README) if path.startswith("mpjax"))


def test_a_config_of_your_own_is_left_alone_by_lint_and_git():
    """`./launch/test.sh` checks what git does not ignore."""
    ignored = [line.removeprefix("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    names = re.findall(r"^# (\w+\.py)$", README, re.MULTILINE)
    assert names and all(any(fnmatch.fnmatch(name, pattern) for pattern in ignored) for name in names)
