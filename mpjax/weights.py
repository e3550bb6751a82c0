"""A run folder seen from outside: its description and its newest weights. Nothing is ever written.

`train` writes run folders, and so does `convert`: weights of others, without an experiment behind them.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from mpjax import codecs, config
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Euler, UniPC
from mpjax.errors import InputError
from mpjax.experiment import Experiment
from mpjax.interop.checkpoint_files import OWN_FILE, Checkpoint, own_description, transformer_place
from mpjax.interop.orbax_arrays import read_step
from mpjax.interop.stored_array import place_tree
from mpjax.interop.transformer_names import boxed_shapes, transformer_entries
from mpjax.interop.transformer_tensors import architecture_of, check_tensors, stored_arrays
from mpjax.models.architecture import Architecture
from mpjax.parallel.mesh import ONE_DEVICE, MeshShape
from mpjax.parallel.rules import tree_shardings

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
        params: EMA weights on the devices of the mesh, of the dtype they are stored in.
        step: updates that made them.
        mesh: devices that share the weights and the work.
    """

    run: Run
    params: dict
    step: int
    mesh: Mesh


def load_run(folder: Path, step: int | None = None, mesh: MeshShape = ONE_DEVICE) -> TrainedRun:
    """Reads description and EMA weights of a checkpoint.

    The weights go from the files straight into the devices, an array at a time, and each device reads its own part.

    Args:
        folder: the run folder.
        step: of the checkpoint (default: the newest).
        mesh: devices that share weights and work; it need not be that of the training (default: one device).

    Raises:
        InputError: no run folder, one without a finished checkpoint, weights that are not those of its network, or a
            mesh of other devices than there are.
    """
    run = read_run(folder)
    step = latest_step(folder) if step is None else step
    devices = mesh.build()
    return TrainedRun(run=run, params=_placed(folder, step, run.model, devices), step=step, mesh=devices)


def _placed(folder: Path, step: int, architecture: Architecture, mesh: Mesh) -> dict:
    """The weights of a checkpoint under the shardings of `parallel.rules`."""
    stored = read_step(folder / "checkpoints" / str(step))
    boxed = boxed_shapes(architecture)
    wanted = jax.tree.map(lambda leaf: leaf.shape, nn.unbox(boxed))
    if jax.tree.map(lambda array: array.shape, stored) != wanted:
        raise InputError(f"{folder}: the weights of update {step} are not those of its network: copy the folder again")
    if mesh.size == 1:  # bound to no device, like any other array that generation makes
        return jax.tree.map(lambda array: jax.block_until_ready(jax.device_put(array.all())), stored)
    shardings = tree_shardings(boxed, mesh)
    like = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), stored, shardings)
    return place_tree(stored, like)


def read_run(folder: Path) -> Run:
    """Reads the description of a run.

    Raises:
        InputError: the folder is no run folder, or its `run.json` is damaged.
    """
    path = folder / "run.json"
    if not path.is_file():
        place = transformer_place(folder)
        if place.suffix == ".safetensors" or any(place.glob("*.safetensors")):
            raise InputError(
                f"{folder} is a PyTorch checkpoint, no run folder: convert it first, "
                f"`python -m mpjax convert --input={folder} --output=RUN`, and give that folder"
            )
        raise InputError(
            f"{folder} is no run folder (it has no run.json): give the folder that `train` or `convert` wrote"
        )
    text = path.read_bytes()
    try:
        stored = json.loads(text)
        converted = "source" in stored
        described = stored if converted else stored["experiment"]
        if "model" not in described:
            raise KeyError("model")
        codec = dict(stored["codec"])
        size = {name: stored[name] for name in ("fps", "height", "width")}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: copy the run folder again") from error
    if converted and "weights" in codec:
        codec["weights"] = str(folder / codec["weights"])  # they lie in the folder, wherever it is moved to
    return Run(
        folder=folder,
        network=network_of(described, "run"),
        experiment=None if converted else config.build(Experiment, described, "experiment"),
        codec=codecs.from_spec(codec),
        identity=hashlib.sha256(text).hexdigest()[:16],
        **size,
    )


def network_of(described: dict[str, Any], name: str) -> Network:
    """The network that a description with the fields of `Network` is of, among others; `name` is what errors call it.

    Raises:
        InputError: a field is missing or wrong.
    """
    fields = [field.name for field in dataclasses.fields(Network)]
    return config.build(Network, {field: described[field] for field in fields if field in described}, name)


def stored_weights(source: Path) -> tuple[dict, str]:
    """Weights to start from, as nested dicts of `StoredArray`: opened, not read.

    Args:
        source: a run folder, whose newest EMA weights are meant, or what `convert --input` reads: a directory of the
            transformer's safetensors, one such file, or the directory of a pipeline, with `transformer/`.

    Returns:
        the arrays, and what they are, in words.

    Raises:
        InputError: neither, or a checkpoint that does not fit the network it describes.
    """
    if (source / "checkpoints").is_dir():
        step = latest_step(source)
        return read_step(source / "checkpoints" / str(step)), f"weights of update {step} from {source}"
    place = transformer_place(source)
    if not place.is_file() and not any(place.glob("*.safetensors")):
        raise InputError(f"{source} holds no weights: give a run folder, a directory of safetensors, or one such file")
    checkpoint, own = Checkpoint.open(place), own_description(place)
    model = architecture_of(checkpoint) if own is None else network_of(own, OWN_FILE).model
    entries = transformer_entries(model)
    check_tensors(checkpoint.tensors, entries, place)
    return stored_arrays(checkpoint.tensors, entries), f"weights of the PyTorch checkpoint {source}"


def latest_step(run: Path) -> int:
    """The step of the newest complete checkpoint of a run folder.

    Raises:
        InputError: the folder holds no finished checkpoint.
    """
    folder = run / "checkpoints"
    if not folder.is_dir():
        raise InputError(f"{run} holds no checkpoints: give the folder of a run that `train` wrote")
    steps = steps_of(run)
    if not steps:
        raise InputError(f"{folder} holds no finished checkpoint: let `train` run until it saves one")
    return steps[-1]


def steps_of(run: Path) -> list[int]:
    """The steps of the complete checkpoints of a run folder, rising."""
    entries = (run / "checkpoints").glob("[0-9]*")
    return sorted(int(entry.name) for entry in entries if entry.name.isdigit() and (entry / COMPLETE).is_file())
