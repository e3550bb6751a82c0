"""Rows that were compiled before: one JSON file each, so that a search that was stopped goes on."""

import dataclasses
import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from mpjax import config
from mpjax.experiment import Experiment
from mpjax.parallel.mesh import MeshShape
from mpjax.plan.row import DEFAULTS, Options, Row, compile_row
from mpjax.whole_files import write_json

PACKAGE = Path(__file__).parents[1]


def _sources() -> str:
    """A hash of the package: other code may compile to another program."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Store:
    """Compiles rows, or takes them from a folder."""

    def __init__(self, folder: Path, options: Options = DEFAULTS):
        """`folder` is made when the first row is written."""
        self._folder, self._options = folder, options
        self._versions = [_sources(), *(version(name) for name in ("jax", "libtpu"))]

    def row(self, experiment: Experiment, topology: str, shape: MeshShape, step: str, segments: int) -> Row:
        """As `compile_row`."""
        place = [topology, dataclasses.asdict(shape)]
        asked = [config.to_dict(experiment), *place, step, segments, dataclasses.asdict(self._options)]
        name = hashlib.sha256(json.dumps([*asked, *self._versions], sort_keys=True).encode()).hexdigest()[:16]
        path = self._folder / f"{name}.json"
        if path.is_file():
            return Row(**json.loads(path.read_text()))
        row = compile_row(experiment, topology, shape, step, segments, self._options)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(path, dataclasses.asdict(row))
        return row
