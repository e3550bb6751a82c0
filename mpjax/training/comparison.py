"""What tells two experiments apart, in words."""

from pathlib import Path
from typing import Any

from mpjax.experiment import FREE_FIELDS


def difference(stored: dict[str, Any], asked: dict[str, Any], init: str | None) -> str:
    """The first field that differs and both its values, as the end of a sentence; empty where none does.

    Args:
        stored: `run.json`.
        asked: `config.to_dict` of the experiment that is asked for.
        init: its `--init`.
    """
    if stored["init"] != init:
        return f", with --init={stored['init']} (asked for: {init})"
    before, now = _flat(stored["experiment"]), _flat(asked)
    if "data.path" in before:  # relative in old runs
        before["data.path"] = str(Path(before["data.path"]).absolute())
    free = {f"training.{name}" for name in FREE_FIELDS} | {"training.nonfinite.limit"}
    for name in [*now, *before]:
        if name in free or name.startswith(("mesh.", "processes.")):
            continue
        if name not in before or name not in now:
            return f", {'without' if name in now else 'with'} the field {name}"
        if before[name] != now[name]:
            return f", with {name}={before[name]} (asked for: {now[name]})"
    return ""


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one dict: `training.stages.0.steps` → value."""
    if not isinstance(value, (dict, list)) or not value:
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {path: leaf for key, v in items for path, leaf in _flat(v, f"{name}.{key}" if name else str(key)).items()}
