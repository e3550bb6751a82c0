"""Strict configs: a Python file with `get_config()` → ml_collections.ConfigDict → frozen, typed dataclasses.

A config file says only what differs from the dataclasses' defaults. Every mistake (unknown field, wrong type, missing
file) is an `InputError` that names the field and what to write instead, raised before anything is computed.

A field whose annotation is a union of dataclasses is chosen by the key `kind`, which each of them declares:
`forcing = dict(kind="student", steps=5)`. Without `kind` it is the one that the field has as its default.
"""

import ast
import dataclasses
import difflib
import importlib.util
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict

from mpjax.errors import InputError

T = TypeVar("T")


def load(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads `FILE.py` or `FILE.py:ARGUMENT` (the argument goes to `get_config`) and applies `--config.a.b=value`.

    An element of a list is named by its number, `--config.a.0.b=value` or `--config.a[0].b=value`.

    Raises:
        InputError: the file is missing, has no `get_config`, or an override names no field or has the wrong type.
    """
    file, _, argument = path.partition(":")
    if not Path(file).is_file():
        raise InputError(
            f"config file {file} does not exist: give --config=PATH.py, for example configs/recall_tiny.py"
        )
    for override in overrides:
        if not re.fullmatch(r"--config((\.\w+)|(\[\d+\]))+=.*", override, re.DOTALL):
            raise InputError(f"{override} is no flag of this command: write config fields as --config.field.name=value")
    spec = importlib.util.spec_from_file_location("mpjax_config", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise InputError(
                "it has no get_config: write a function of this name that returns an ml_collections.ConfigDict, as in "
                "configs/recall_tiny.py"
            )
        config = module.get_config(argument) if argument else module.get_config()
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    except (AttributeError, ImportError, KeyError, NameError, SyntaxError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        if field := re.fullmatch(r"'dict' object has no attribute '(\w+)'", said):
            said = f'{field[1]} belongs to an element of a list, which is a plain dict: write ["{field[1]}"]'
        raise InputError(f"{file}: {said}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"{file}: get_config() returned {type(config).__name__}; it must return an ml_collections.ConfigDict"
        )
    for override in overrides:
        _override(config, override)
    return config


def _override(config: ConfigDict, override: str) -> None:
    """Sets a field, also one that the file leaves at its default; `build` refuses what is no field and wrong types."""
    name, _, text = override.removeprefix("--config").partition("=")
    names = re.findall(r"\w+", name)
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = text  # a string needs no quotes
    path = "config"
    with config.ignore_type():
        for place, group in enumerate(names[:-1]):
            inner = config.get(group)
            if isinstance(inner, (tuple, list)):
                config[group] = _replaced(inner, names[place + 1 :], value, f"{path}.{group}")
                return
            if not isinstance(inner, ConfigDict):
                config[group] = ConfigDict()
            config, path = config[group], f"{path}.{group}"
        config[names[-1]] = value


def _replaced(holder: Any, names: Sequence[str], value: Any, path: str) -> Any:
    """A copy of a list, or of the plain dicts and lists inside it, with another value where the names lead."""
    if not names:
        return value
    name, rest = names[0], names[1:]
    if not isinstance(holder, (tuple, list)):
        fields = dict(holder) if isinstance(holder, Mapping) else {}
        return fields | {name: _replaced(fields.get(name), rest, value, f"{path}.{name}")}
    if not name.isdecimal() or int(name) >= len(holder):
        numbers = f"give a number from 0 to {len(holder) - 1}: --{path}.0" if holder else "it is empty"
        raise InputError(f"{path} is a list, and {name} is no element of it: {numbers}")
    place = int(name)
    return [*holder[:place], _replaced(holder[place], rest, value, f"{path}[{place}]"), *holder[place + 1 :]]


def find(name: str) -> Path:
    """A config shipped with the package, by file name (`recall_tiny.py`), wherever the package is installed."""
    spec = importlib.util.find_spec("configs")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (path := Path(folder) / name).is_file():
            return path
    raise InputError(f"config {name} is not among the shipped configs in {', '.join(folders) or 'configs/'}")


def build(cls: type[T], values: Mapping[str, Any] | ConfigDict, path: str = "config") -> T:
    """Builds a frozen dataclass tree from nested mappings, checking every name and type.

    Raises:
        InputError: an unknown or missing field, a value of another type, or a value the dataclass itself refuses.
    """
    values = values.to_dict() if isinstance(values, ConfigDict) else dict(values)
    if hasattr(cls, "kind"):
        values.pop("kind", None)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            known = f"known fields: {', '.join(fields)}" if fields else "it has none"
            hint = f"did you mean {close[0]}?" if close else known
            kind = getattr(cls, "kind", None)
            of_kind = f" of kind {kind!r}" if kind else ""
            raise InputError(f"{path}.{name} is not a config field{of_kind}: {hint}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise InputError(f"{path}.{name} is missing: set it to a {_describe(hints[name])}")
    try:
        return cls(
            **{
                name: _convert(value, hints[name], f"{path}.{name}", getattr(fields[name].default, "kind", None))
                for name, value in values.items()
            }
        )
    except InputError as error:
        message = str(error).removeprefix(f"{path.rpartition('.')[2]}.")
        raise error if message.startswith(path) else InputError(f"{path}.{message}") from error


def to_dict(value: Any) -> Any:
    """The inverse of `build`: nested plain dicts and lists, with `kind` where a union needs it; JSON-able."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        result = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": value.kind, **result} if hasattr(value, "kind") else result
    if isinstance(value, (tuple, list)):
        return [to_dict(item) for item in value]
    return value


_NAMES = {
    "NoneType": ("None", "None"),
    "str": ("string", "strings"),
    "int": ("whole number", "whole numbers"),
    "float": ("number", "numbers"),
    "bool": ("True or False", "True or False"),
}


def _describe(hint: Any, several: bool = False) -> str:
    """What a value must be, in words: `list of pairs of whole numbers`."""
    if isinstance(hint, types.UnionType):
        return " or ".join(dict.fromkeys(_describe(option, several) for option in typing.get_args(hint)))
    ending = "s" if several else ""
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)
        what = _describe(inner[0], several=True)
        if inner[-1] is Ellipsis:
            return f"list{ending} of {what}"
        return f"pair{ending} of {what}" if len(inner) == 2 else f"list{ending} of {len(inner)} {what}"
    if dataclasses.is_dataclass(hint):
        return f"group{ending} of fields"
    name = getattr(hint, "__name__", str(hint))
    return _NAMES.get(name, (name, name))[several]


def _convert(value: Any, hint: Any, path: str, default_kind: str | None = None) -> Any:
    if isinstance(hint, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        kinds: dict[str, Any] = {o.kind: o for o in options if dataclasses.is_dataclass(o) and hasattr(o, "kind")}
        if kinds:
            if not isinstance(value, Mapping):
                raise InputError(f"{path} is {value!r}: it must be a group of fields")
            kind = value.get("kind", default_kind)
            if kind not in kinds:
                raise InputError(f"{path}.kind is {kind!r}: it must be one of {', '.join(sorted(kinds))}")
            return build(kinds[kind], value, path)
        remaining = [o for o in options if o is not type(None)]
        if len(remaining) == 1:
            return _convert(value, remaining[0], path)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{path} is {value!r}: it must be a group of fields")
        return build(typing.cast(type, hint), value, path)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (tuple, list)):
            raise InputError(f"{path} is {value!r}: it must be a {_describe(hint)}")
        inner = typing.get_args(hint)
        if inner[-1] is Ellipsis:
            return tuple(_convert(v, inner[0], f"{path}[{i}]") for i, v in enumerate(value))
        if len(value) != len(inner):
            raise InputError(f"{path} is {value!r}: it must have exactly {len(inner)} entries")
        return tuple(_convert(v, h, f"{path}[{i}]") for i, (v, h) in enumerate(zip(value, inner, strict=True)))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{path} is {value!r}: it must be a {_describe(hint)}")
    return value
