"""Every metric that can be asked for by name, and the files that it needs."""

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from mpjax.data.media import Media
from mpjax.errors import InputError
from mpjax.evaluation.metrics.metric import Metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """A file that the user brings, since its authors publish it and we may not.

    Attributes:
        names: where it is looked for below the folder of weights; the first that is there is read.
        source: where its authors publish it.
    """

    names: tuple[str, ...]
    source: str

    def find(self, folder: Path | None) -> Path | None:
        """Where it lies, None if it does not; the same name with `.safetensors` is found too."""
        places = [] if folder is None else [folder / name for name in self.names]
        places += [path.with_suffix(".safetensors") for path in places if path.suffix in (".pt", ".pth")]
        return next((path for path in places if path.exists()), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Offer:
    """A metric before its files are read.

    Attributes:
        name: of the metric.
        make: gives the metric; the paths are those of `files`, in order.
        files: what it needs; none for a metric without a network.
        flag: of `evaluate`, without which no video has it; empty for most.
    """

    name: str
    make: Callable[..., Metric]
    files: tuple[File, ...] = ()
    flag: str = ""

    def digest(self, folder: Path | None) -> str:
        """SHA-256 of all its files in hexadecimal; empty for a metric without a network.

        Raises:
            InputError: one of them is empty or cannot be read.
        """
        found = [path for file in self.files if (path := file.find(folder)) is not None]
        inside = [[path] if path.is_file() else sorted(path.rglob("*")) for path in found]
        parts = [Media(path=path).content_hash() for paths in inside for path in paths if path.is_file()]
        return hashlib.sha256("".join(parts).encode()).hexdigest() if parts else ""


def choose(
    offers: Sequence[Offer], names: str, weights: Path | None, flags: Collection[str] = ()
) -> tuple[list[Metric], Mapping[str, Sequence[str]]]:
    """The metrics of `--metrics`: `all`, or names with commas between them.

    Args:
        offers: what there is.
        names: as above.
        weights: folder of the files.
        flags: which of the offers' flags were given.

    Returns:
        the metrics, and for each that lacks files or a flag what it lacks (under `all` only).

    Raises:
        InputError: an unknown name, or one asked for by name that lacks something.
    """
    by_name = {offer.name: offer for offer in offers}
    asked = list(by_name) if names == "all" else [name.strip() for name in names.split(",")]
    for name in asked:
        if name not in by_name:
            raise InputError(f"--metrics {name}: choose all or some of {', '.join(by_name)}")
        if asked.count(name) > 1:
            raise InputError(f"--metrics names {name} twice: name it once")
    metrics, left_out = [], {}
    for name in asked:
        offer = by_name[name]
        files = [f"{file.names[0]} (from {file.source})" for file in offer.files if file.find(weights) is None]
        flag = [offer.flag] if offer.flag and offer.flag not in flags else []
        if not files and not flag:
            metrics.append(offer.make(*(file.find(weights) for file in offer.files)))
            continue
        if names != "all":
            remedies = ["put it into the folder of --weights"] if files else []
            remedies += [f"give {offer.flag}"] if flag else []
            raise InputError(f"--metrics {name} needs {' and '.join([*files, *flag])}: {', and '.join(remedies)}")
        left_out[name] = [*files, *flag]
    return metrics, left_out
