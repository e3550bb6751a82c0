"""A run folder → a PyTorch checkpoint in diffusers' layout.

    config.json                              what diffusers knows of the network
    diffusion_pytorch_model*.safetensors     the tensors under diffusers' names, in shards with an index where large
    mpjax.safetensors                        tensors that no other implementation has: SemanticPack, built-in encoders
    mpjax.json                               what diffusers has no word for; `convert --input` reads it

With a VAE, this is the folder `transformer/` of a pipeline and the VAE's files are in `vae/`. Weights that came from a
PyTorch checkpoint go back into the same files at the same places: their bytes are those that were converted.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mpjax import config
from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import CONFIG, OWN_FILE, Checkpoint, TensorInfo
from mpjax.interop.checkpoint_writer import CheckpointWriter, default_files, write_index
from mpjax.interop.convert.output_folder import building, is_finished, write_description
from mpjax.interop.layout import Entry
from mpjax.interop.stored_array import StoredArray
from mpjax.interop.transformer_config import to_config
from mpjax.interop.transformer_names import transformer_entries
from mpjax.progress import ByteProgress
from mpjax.weights import latest_step, read_run, whole_arrays

Say = Callable[[str], None]

LAYOUT_FILE = "pytorch.json"  # in a run folder: how the checkpoint was laid out that its weights came from


def export_run(folder: Path, output: Path, *, dtype: np.dtype | None = None, say: Say = print) -> None:
    """Writes the newest averaged weights of a run folder as a PyTorch checkpoint.

    Args:
        folder: of `train` or `convert`.
        output: must not exist, be empty, or hold the result of the same call, which then returns at once.
        dtype: of the tensors; None: as the parameters are stored.
        say: receives one line of progress at a time.

    Raises:
        InputError: no run folder, weights that are not those of its network, or `output` holds anything else.
    """
    # -- Check -----------------------------------------------------------------------------------------------------
    run, step = read_run(folder), latest_step(folder)
    if run.experiment is not None and run.experiment.training.lora is not None:
        raise InputError(f"{folder} holds adapters alone: add --lora-format to write them as a LoRA file")
    entries = transformer_entries(run.model)
    arrays = _matched(whole_arrays(run, step)[0], entries, folder)
    codec = run.codec.spec()
    vae = Path(codec["weights"]) if "weights" in codec else None
    place = "." if vae is None else "transformer"
    description = {
        **config.to_dict(run.network),
        "codec": codec if vae is None else codec | {"weights": vae_place(vae)},
        "fps": run.fps,
        "height": run.height,
        "width": run.width,
        "source": {
            "weights": str(folder),
            "identity": run.identity,
            "step": step,
            "dtype": None if dtype is None else dtype.name,
        },
    }
    if is_finished(output, description, f"{place}/{OWN_FILE}"):
        say(f"{output}: finished already")
        return

    # -- Write -----------------------------------------------------------------------------------------------------
    tensors = [
        TensorInfo(name=name, shape=entry.shape, dtype=dtype or array.dtype)
        for entry, array in zip(entries, arrays, strict=True)
        for name in entry.names
    ]
    total = sum(tensor.nbytes for tensor in tensors)
    say(f"{folder}: update {step}, {len(tensors)} tensors, {total / 1e6:,.0f} MB")
    progress = ByteProgress(total, say)
    with building(output) as partial:
        target = partial / place
        target.mkdir(exist_ok=True)
        if vae is not None:
            copy_files(vae, partial / "vae")
        files, metadata, texts = _layout(folder, tensors)
        for name, text in ({CONFIG: to_config(run.model)} | texts).items():
            (target / name).write_text(text, encoding="utf-8")
        if texts.keys() <= {CONFIG}:
            write_index(target, tensors, files)
        with CheckpointWriter(target, tensors, files, metadata) as writer:
            for entry, array in zip(entries, arrays, strict=True):
                for name, value in _tensors(entry, array):
                    value = value.astype(dtype or value.dtype, copy=False)
                    writer.write(name, value)
                    progress.add(value.nbytes)
        write_description(target, description, OWN_FILE)
    say(f"{output}: finished")


def copy_files(source: Path, target: Path) -> None:
    """Copies a checkpoint as it is: its safetensors, `config.json` and index."""
    checkpoint = Checkpoint.open(source)
    target.mkdir()
    for name in (*checkpoint.files, *checkpoint.texts):
        shutil.copyfile(checkpoint.folder / name, target / name)


def vae_place(vae: Path) -> str:
    """Where `copy_files(vae, folder / "vae")` puts a VAE, as its codec names it: a directory, or a file."""
    return f"vae/{vae.name}" if vae.is_file() else "vae"


def layout_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """All of a checkpoint but its tensors, JSON-able."""
    return {
        "bytes": sum(tensor.nbytes for tensor in checkpoint.tensors.values()),
        "files": {name: list(members) for name, members in checkpoint.files.items()},
        "metadata": dict(checkpoint.metadata),
        "texts": dict(checkpoint.texts),
    }


def _layout(folder: Path, tensors: Sequence[TensorInfo]) -> tuple[dict, dict, dict]:
    """Files, their metadata and the texts beside them: those of the checkpoint that was converted, where they fit."""
    path = folder / LAYOUT_FILE
    if path.is_file():
        layout = json.loads(path.read_text(encoding="utf-8"))
        files = layout["files"]
        if {name for members in files.values() for name in members} == {tensor.name for tensor in tensors}:
            same = layout["bytes"] == sum(tensor.nbytes for tensor in tensors)
            texts = layout["texts"]
            if not same:  # the index counts bytes, and dtypes have changed
                texts = {name: text for name, text in texts.items() if name == CONFIG}
            return files, layout["metadata"], texts
    return default_files(tensors), {}, {}


def _matched(tree: dict[str, Any], entries: Sequence[Entry], folder: Path) -> list[StoredArray]:
    """The arrays of a checkpoint in the order of the entries."""
    arrays = {tuple(key.key for key in path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
    for entry in entries:
        if entry.path not in arrays or arrays[entry.path].shape != entry.array_shape:
            raise InputError(f"{folder}: {'/'.join(entry.path)} is not what run.json describes: copy the folder again")
    return [arrays[entry.path] for entry in entries]


def _tensors(entry: Entry, array: StoredArray):
    """Names and values of the tensors of an array, read a block of layers at a time."""
    if not entry.stacked:
        yield entry.names[0], entry.to_tensor(array.all())
        return
    for start in range(0, len(entry.names), array.block):
        layers = slice(start, min(start + array.block, len(entry.names)))
        values = array.read((layers, *(slice(0, size) for size in array.shape[1:])))
        for name, value in zip(entry.names[layers], values, strict=True):
            yield name, entry.to_tensor(value)
