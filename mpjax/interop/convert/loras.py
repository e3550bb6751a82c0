"""The adapter of a run, or of a LoRA file, → a LoRA file under other names."""

from collections.abc import Callable
from pathlib import Path

from mpjax.errors import InputError
from mpjax.interop.lora_files import LoraFile, read_lora, write_lora
from mpjax.interop.lora_trees import to_layers
from mpjax.weights import read_run, run_adapter

Say = Callable[[str], None]


def export_lora(folder: Path, output: Path, form: str, *, file: Path | None = None, say: Say = print) -> None:
    """Writes a LoRA file.

    Args:
        folder: run folder; of adapters, unless `file` is given, which then is for the network of this run.
        output: safetensors file; must not exist.
        form: of `interop.lora_names.FORMATS`.
        file: LoRA file to write anew.
        say: receives one line of progress at a time.

    Raises:
        InputError: no adapter, one that other implementations have no word for, or `output` exists.
    """
    if output.exists() or output.suffix != ".safetensors":
        raise InputError(f"--output is {output}: give a new file whose name ends in .safetensors")
    architecture = read_run(folder).model
    if file is not None:
        found = read_lora(file, architecture)
    else:
        layers, strange = to_layers(run_adapter(folder), architecture)
        if strange:
            raise InputError(f"{folder} adapts {', '.join(strange)}, which others lack: generate from the run itself")
        found = LoraFile(layers=layers)
    partial = output.with_name(output.name + ".partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_lora(partial, found, form, architecture)
        partial.replace(output)
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror}): give another --output") from error
    finally:
        partial.unlink(missing_ok=True)
    ranks = sorted({layer.rank for layer in found.layers.values()})
    say(f"{output}: {len(found.layers)} layers of rank {', '.join(map(str, ranks))}")
