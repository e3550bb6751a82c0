"""LoRA at generation: files or runs of adapters, several with weights, live or folded into the weights of a run."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import jax

from mpjax.errors import InputError
from mpjax.interop.lora_files import read_lora
from mpjax.interop.lora_trees import to_adapter
from mpjax.interop.transformer_names import parameter_shapes
from mpjax.models.lora import combine, entries_of, fold, only_entries
from mpjax.parameters import merge, parameter_path
from mpjax.weights import Run, TrainedRun, run_adapter, weights_hash


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChosenLora:
    """An adapter and how much of it.

    Attributes:
        path: safetensors file, or run folder of `train` with `training.lora`.
        weight: factor of its update.
    """

    path: Path
    weight: float = 1.0

    def __post_init__(self):
        if not math.isfinite(self.weight):
            raise InputError(f"the weight of {self.path} is {self.weight}: give a number, for example 0.8")

    @classmethod
    def parse(cls, text: str) -> "ChosenLora":
        """`FILE` or `FILE:WEIGHT`."""
        path, _, number = text.rpartition(":")
        try:
            weight = float(number)
        except ValueError:
            path = ""  # the colon belongs to the name
        return cls(path=Path(path), weight=weight) if path else cls(path=Path(text))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapters:
    """All that are chosen.

    Attributes:
        chosen: in the order given.
        live: leave the weights as they are and add the updates at every layer; else they are folded in once, unless the
            weights are quantised, which have no room for them.
    """

    chosen: tuple[ChosenLora, ...] = ()
    live: bool = False

    def __post_init__(self):
        if self.live and not self.chosen:
            raise InputError("--lora-live has no effect without --lora: add one, or leave it out")

    @classmethod
    def parse(cls, texts: Sequence[str], live: bool) -> "Adapters":
        """Each `FILE` or `FILE:WEIGHT`."""
        return cls(chosen=tuple(ChosenLora.parse(text) for text in texts), live=live)

    def known_to(self, run: Run) -> Run:
        """The run with an identity that tells videos with these adapters from others; reads the files.

        Raises:
            InputError: an adapter cannot be read, or is of another network.
        """
        if not self.chosen:
            return run
        _read(self.chosen, run)
        said = [run.identity, self._live_beside(run), *((weights_hash(one.path), one.weight) for one in self.chosen)]
        return dataclasses.replace(run, identity=hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16])

    def _live_beside(self, run: Run) -> bool:
        """Whether the updates are added at every layer: quantised weights have no room for them."""
        return self.live or run.quantization is not None

    def put_on(self, trained: TrainedRun) -> TrainedRun:
        """The run with the adapters; folding them in uses its parameters up.

        Raises:
            InputError: as `known_to`.
        """
        if not self.chosen:
            return trained
        adapter = combine(_read(self.chosen, trained.run))
        if self._live_beside(trained.run):
            own = only_entries(trained.params)
            if own and jax.process_count() > 1:
                flags = "--quantize and --lora-live" if trained.run.quantization is not None else "--lora-live"
                raise InputError(
                    f"{trained.run.folder} has an adapter of its own: leave {flags} out, or use one process"
                )
            together = combine([(own, 1.0), (adapter, 1.0)]) if own else adapter
            return dataclasses.replace(trained, params=merge(together, trained.params))
        return dataclasses.replace(trained, params=fold(trained.params, adapter))


def _read(chosen: Sequence[ChosenLora], run: Run) -> list[tuple[dict, float]]:
    """The adapters with their weights."""
    found = []
    for one in chosen:
        if one.path.is_dir():
            adapter = run_adapter(one.path)
            _check(adapter, one.path, run)
        else:
            adapter = to_adapter(read_lora(one.path, run.model).layers, run.model)
        found.append((adapter, one.weight))
    return found


def _check(adapter: dict, path: Path, run: Run) -> None:
    """Whether the layers of an adapter are those of the run's network."""
    known = jax.tree.leaves_with_path(parameter_shapes(run.model))
    shapes = {parameter_path(place): leaf.shape for place, leaf in known}
    for place, entry in entries_of(adapter):
        name = "/".join(place)
        if shapes.get(f"{name}/kernel") != (*entry["a"].shape[:-1], entry["b"].shape[-1]):
            raise InputError(f"{path} adapts a {name} that is not that of {run.folder}: give one of the same network")
