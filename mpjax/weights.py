"""A run folder seen from outside: its description and its newest weights. Nothing is ever written.

`train` writes run folders, and so does `convert`: weights of others, without an experiment behind them.
"""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from mpjax import codecs, config
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Euler, UniPC
from mpjax.errors import InputError
from mpjax.experiment import Experiment
from mpjax.interop.checkpoint_files import Checkpoint
from mpjax.interop.orbax_arrays import read_step
from mpjax.interop.transformer_names import transformer_entries
from mpjax.interop.transformer_tensors import architecture_of, check_tensors, stored_arrays
from mpjax.models.architecture import Architecture

logging.getLogger("absl").setLevel(logging.ERROR)

# A step without this file is what a crash left.
COMPLETE = "_CHECKPOINT_METADATA"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """What generation needs to know of a network: fields of `Experiment` that converted weights have too.

    Attributes:
        model: shapes.
        guidance: distilled guidance scale fed to a network with `guidance_embeds`.
        sampler: how segments are drawn.
        classifier_free: guidance away from a negative prompt.
    """

    model: Architecture
    guidance: float = 1.0
    sampler: Euler | UniPC = Euler()
    classifier_free: ClassifierFree = UNGUIDED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What `run.json` of a run folder says.

    Attributes:
        folder: the run folder.
        network: what is run.
        experiment: what was trained; None for converted weights.
        codec: latents ↔ pixels, with its normalisation.
        fps: frames per second.
        height, width: pixels.
        identity: a short hash of the whole description.
    """

    folder: Path
    network: Network
    experiment: Experiment | None
    codec: codecs.Codec
    fps: float
    height: int
    width: int
    identity: str

    @property
    def model(self) -> Architecture:
        """Shapes of the network."""
        return self.network.model


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedRun:
    """A run and weights of it.

    Attributes:
        run: its description.
        params: EMA weights, host arrays.
        step: updates that made them.
    """

    run: Run
    params: dict
    step: int


def load_run(folder: Path, step: int | None = None) -> TrainedRun:
    """Reads description and EMA weights of a checkpoint (default: the newest).

    Raises:
        InputError: no run folder, or one without a finished checkpoint.
    """
    run = read_run(folder)
    params, step = load_ema(folder, step)
    return TrainedRun(run=run, params=params, step=step)


def read_run(folder: Path) -> Run:
    """Reads the description of a run.

    Raises:
        InputError: the folder is no run folder, or its `run.json` is damaged.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise InputError(
            f"{folder} is no run folder (it has no run.json): give the folder that `train` or `convert` wrote"
        )
    text = path.read_bytes()
    try:
        stored = json.loads(text)
        converted = "source" in stored
        described = stored if converted else stored["experiment"]
        fields = [field.name for field in dataclasses.fields(Network)]
        network = {"model": described["model"]} | {name: described[name] for name in fields if name in described}
        codec = dict(stored["codec"])
        size = {name: stored[name] for name in ("fps", "height", "width")}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: copy the run folder again") from error
    if converted and "weights" in codec:
        codec["weights"] = str(folder / codec["weights"])  # they lie in the folder, wherever it is moved to
    return Run(
        folder=folder,
        network=config.build(Network, network, "run"),
        experiment=None if converted else config.build(Experiment, described, "experiment"),
        codec=codecs.from_spec(codec),
        identity=hashlib.sha256(text).hexdigest()[:16],
        **size,
    )


def stored_weights(source: Path) -> tuple[dict, str]:
    """Weights to start from, as nested dicts of `StoredArray`: opened, not read.

    Args:
        source: a run folder, whose newest EMA weights are meant, or a directory with a PyTorch checkpoint of the
            transformer.

    Returns:
        the arrays, and what they are, in words.

    Raises:
        InputError: neither, or a checkpoint that does not fit the network it describes.
    """
    if not (source / "checkpoints").is_dir() and any(source.glob("*.safetensors")):
        checkpoint = Checkpoint.open(source)
        entries = transformer_entries(architecture_of(checkpoint))
        check_tensors(checkpoint.tensors, entries, source)
        return stored_arrays(checkpoint.tensors, entries), f"weights of the PyTorch checkpoint {source}"
    if not (source / "checkpoints").is_dir():
        raise InputError(f"{source} holds no weights: give a run folder, or a directory of safetensors")
    step = latest_step(source)
    return read_step(source / "checkpoints" / str(step)), f"weights of update {step} from {source}"


def latest_step(run: Path) -> int:
    """The step of the newest complete checkpoint of a run folder.

    Raises:
        InputError: the folder holds no finished checkpoint.
    """
    folder = run / "checkpoints"
    if not folder.is_dir():
        raise InputError(f"{run} holds no checkpoints: give the folder of a run that `train` wrote")
    steps = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit() and (entry / COMPLETE).is_file()]
    if not steps:
        raise InputError(f"{folder} holds no finished checkpoint: let `train` run until it saves one")
    return max(steps)


def load_ema(run: Path, step: int | None = None) -> tuple[dict, int]:
    """The EMA weights of a checkpoint (default: the newest) and its step.

    They come as host arrays, so that it does not matter on what devices they were trained.

    Raises:
        InputError: the folder holds no finished checkpoint.
    """
    step = latest_step(run) if step is None else step
    folder = (run / "checkpoints" / str(step) / "ema").absolute()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(folder).item_metadata.tree
        host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(folder, ocp.args.PyTreeRestore(restore_args=host)), step
