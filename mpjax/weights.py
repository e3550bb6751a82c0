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
import numpy as np
from jax.sharding import Mesh

from mpjax import codecs, config
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Euler, UniPC
from mpjax.errors import InputError, some_of
from mpjax.experiment import Experiment
from mpjax.interop.checkpoint_files import OWN_FILE, Checkpoint, own_description, sampled_hash, transformer_place
from mpjax.interop.orbax_arrays import ITEM, read_step
from mpjax.interop.quantized_arrays import quantized_arrays
from mpjax.interop.stored_array import StoredArray, place_tree
from mpjax.interop.transformer_names import boxed_shapes, transformer_entries
from mpjax.interop.transformer_tensors import architecture_of, check_tensors, stored_arrays
from mpjax.models.architecture import Architecture
from mpjax.models.lora import ENTRY, entries_of, init_adapter, only_entries, put_entry, scales
from mpjax.models.quantization import Quantization, quantized_shapes
from mpjax.parallel.mesh import ONE_DEVICE, MeshShape
from mpjax.parallel.rules import tree_shardings
from mpjax.parameters import merge, parameter_path, without

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
        base: where the weights lie beside which the run trained the rest, and their hash; None for whole weights.
        quantization: which kernels are quantised as they are read: as in the training, or as asked for; None: none.
    """

    folder: Path
    network: Network
    experiment: Experiment | None
    codec: codecs.Codec
    fps: float
    height: int
    width: int
    identity: str
    base: tuple[Path, str] | None = None
    quantization: Quantization | None = None

    @property
    def model(self) -> Architecture:
        """Shapes of the network."""
        return self.network.model


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedRun:
    """A run and weights of it.

    Attributes:
        run: its description.
        params: EMA weights on the devices of the mesh, of the dtype they are stored in or quantised; adapters are live.
        step: updates that made them.
        mesh: devices that share the weights and the work.
    """

    run: Run
    params: dict
    step: int
    mesh: Mesh


def load_run(
    folder: Path,
    step: int | None = None,
    mesh: MeshShape = ONE_DEVICE,
    quantization: Quantization | None = None,
) -> TrainedRun:
    """Reads description and EMA weights of a checkpoint.

    The weights go from the files straight into the devices, an array at a time, and each device reads its own part.
    Kernels are quantised on the way, a layer at a time.

    Args:
        folder: the run folder.
        step: of the checkpoint (default: the newest).
        mesh: devices that share weights and work; it need not be that of the training (default: one device).
        quantization: which kernels are quantised, and how (default: none).

    Raises:
        InputError: no run folder, one without a finished checkpoint, weights that are not those of its network, a
            quantisation that suits them not, or a mesh of other devices than there are.
    """
    run = with_quantization(read_run(folder), quantization)
    step = latest_step(folder) if step is None else step
    devices = mesh.build()
    return TrainedRun(run=run, params=_placed(run, step, devices), step=step, mesh=devices)


def whole_arrays(run: Run, step: int) -> tuple[dict, dict]:
    """The weights of a checkpoint with those that the run trained beside, as nested dicts of `StoredArray`, opened, not
    read; and the shapes of the network that they are of, boxed with logical axis names.

    Raises:
        InputError: what they were trained beside is gone, or is not what it was.
    """
    stored, boxed = read_step(run.folder / "checkpoints" / str(step)), boxed_shapes(run.model)
    return (stored, boxed) if run.base is None else _with_base(run, stored, boxed)


def _placed(run: Run, step: int, mesh: Mesh) -> dict:
    """The weights of a checkpoint under the shardings of `parallel.rules`."""
    folder = run.folder
    stored, boxed = whole_arrays(run, step)
    wanted = jax.tree.map(lambda leaf: leaf.shape, nn.unbox(boxed))
    if jax.tree.map(lambda array: array.shape, stored) != wanted:
        raise InputError(f"{folder}: the weights of update {step} are not those of its network: copy the folder again")
    if (spec := run.quantization) is not None:
        stored, boxed = quantized_arrays(spec, stored), quantized_shapes(spec, boxed)
    if mesh.size == 1:  # bound to no device, like any other array that generation makes
        return jax.tree.map(lambda array: jax.block_until_ready(jax.device_put(array.all())), stored)
    shardings = tree_shardings(boxed, mesh)
    like = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), stored, shardings)
    return place_tree(stored, like)


def with_quantization(run: Run, quantization: Quantization | None) -> Run:
    """The run with its kernels quantised, and an identity that tells its videos from those of the run as it is.

    Raises:
        InputError: `targets` names no module of the network, or the run was trained beside quantised kernels.
    """
    if quantization is None:
        return run
    if run.quantization is not None:
        raise InputError(
            f"{run.folder} was trained beside quantised weights, which are read as they were then: leave --quantize out"
        )
    quantized_shapes(quantization, boxed_shapes(run.model))
    said = json.dumps([run.identity, config.to_dict(quantization)])
    identity = hashlib.sha256(said.encode()).hexdigest()[:16]
    return dataclasses.replace(run, quantization=quantization, identity=identity)


def _with_base(run: Run, stored: dict, boxed: dict) -> tuple[dict, dict]:
    """What a run trained with what that was trained beside, and the boxed shapes of both together."""
    assert run.base is not None and run.experiment is not None
    training, (place, known_hash) = run.experiment.training, run.base
    lora = training.lora
    if not place.exists():
        raise InputError(f"{place}, beside which {run.folder} was trained, is gone: put it back")
    if weights_hash(place) != known_hash:
        raise InputError(f"{place} is not what {run.folder} was trained beside: put back the weights of then")
    whole, scale = boxed, 1.0
    if lora is not None:
        entries = jax.eval_shape(lambda: merge(init_adapter(lora, jax.random.key(0), boxed), scales(lora, boxed)))
        whole, scale = merge(boxed, entries), lora.scale
    rest = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, training.held_in), without(nn.unbox(whole), stored)
    )
    return merge(stored, base_arrays(rest, place, scale)), whole


def base_arrays(like: Any, source: Path, scale: float = 1.0) -> dict:
    """What the rest of a network is trained beside, as nested dicts of `StoredArray`: opened, not read.

    Args:
        like: the tree that is wanted, with shapes and dtypes; of an adapter it holds the scales alone.
        source: as of `stored_weights`.
        scale: of the adapter.

    Raises:
        InputError: as `stored_weights`, or `source` lacks a parameter or has another shape of it.
    """
    stored, _ = stored_weights(source)
    known = {parameter_path(path): array for path, array in jax.tree.leaves_with_path(stored)}
    missing: list[str] = []

    def pick(path: tuple, leaf: Any) -> StoredArray:
        name = parameter_path(path)
        if name.endswith(f"/{ENTRY}/scale"):
            whole = np.full(leaf.shape, scale, np.float32)
            return StoredArray(shape=leaf.shape, dtype=whole.dtype, read=lambda index: whole[index], block=1)
        array = known.get(name)
        if array is None or array.shape != leaf.shape:
            missing.append(name)
            return leaf
        dtype = np.dtype(leaf.dtype)
        return dataclasses.replace(array, dtype=dtype, read=lambda index: array.read(index).astype(dtype, copy=False))

    arrays = jax.tree.map_with_path(pick, like)
    if missing:
        raise InputError(
            f"{source} lacks {some_of(missing)}, which no stage trains: "
            "give weights of the same network, or train them, too"
        )
    return arrays


def run_adapter(folder: Path) -> dict:
    """The adapter of a run, its newest averages and its scale, as host arrays.

    Raises:
        InputError: no run folder, or one that trained something else than an adapter.
    """
    run = read_run(folder)
    if run.base is None or run.experiment is None or run.experiment.training.lora is None:
        raise InputError(f"{folder} is no run of adapters: give one that was trained with training.lora")
    stored = read_step(folder / "checkpoints" / str(latest_step(folder)))
    adapter: dict[str, Any] = {}
    if whole := without(stored, only_entries(stored)):
        some = parameter_path(jax.tree.leaves_with_path(whole)[0][0])
        raise InputError(f"{folder} trained more than adapters, for one {some}: generate from it, --weights={folder}")
    for path, entry in entries_of(stored):
        a, b = entry["a"].all(), entry["b"].all()
        scale = np.full(a.shape[:-2], run.experiment.training.lora.scale, np.float32)
        put_entry(adapter, path, {"a": a, "b": b, "scale": scale})
    return adapter


def weights_hash(source: Path) -> str:
    """A hash of the weights that `stored_weights` reads, by their files (`checkpoint_files.sampled_hash`).

    Raises:
        InputError: there are none.
    """
    if (source / "checkpoints").is_dir():
        folder = source / "checkpoints" / str(latest_step(source)) / ITEM
        return sampled_hash(tuple(path for path in sorted(folder.rglob("*")) if path.is_file()))
    place = transformer_place(source)
    return sampled_hash((place,) if place.is_file() else tuple(sorted(place.glob("*.safetensors"))))


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
        base = (Path(stored["base"]["path"]), stored["base"]["hash"]) if "base" in stored else None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: copy the run folder again") from error
    if converted and "weights" in codec:
        codec["weights"] = str(folder / codec["weights"])  # they lie in the folder, wherever it is moved to
    experiment = None if converted else config.build(Experiment, described, "experiment")
    return Run(
        folder=folder,
        network=network_of(described, "run"),
        experiment=experiment,
        quantization=None if experiment is None else experiment.training.base_quantization,
        codec=codecs.from_spec(codec),
        identity=hashlib.sha256(text).hexdigest()[:16],
        base=base,
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
        InputError: neither, a run that holds a part of a network alone, or a checkpoint that does not fit the network
            it describes.
    """
    if (source / "checkpoints").is_dir():
        step = latest_step(source)
        description = source / "run.json"
        if description.is_file() and "base" in json.loads(description.read_bytes()):
            raise InputError(
                f"{source} holds only what it trained beside other weights: start from those, or from what "
                f"`python -m mpjax convert --weights={source} --output=FOLDER` makes of both"
            )
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
