"""The description of a run in its folder: written once, and what tells one run from another."""

import json
from pathlib import Path

from mpjax import config
from mpjax.datasets import Datasets
from mpjax.errors import InputError
from mpjax.experiment import ClipsData, Experiment, fingerprint
from mpjax.training.comparison import difference
from mpjax.weights import weights_hash
from mpjax.whole_files import unfinished, write_file


def claim(folder: Path, experiment: Experiment, datasets: Datasets, init: Path | None) -> None:
    """Writes `run.json`, or checks that it is this experiment's."""
    path = folder / "run.json"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give --run a folder")
    origin = None if init is None else str(init)
    mark = fingerprint(experiment)
    # What is trained means nothing beside other weights, and those are not part of the run.
    beside = experiment.training.held_in is not None and init is not None
    base = {"path": str(init.absolute()), "hash": weights_hash(init)} if beside and init is not None else None
    described = config.to_dict(experiment)
    if isinstance(experiment.data, ClipsData):
        described["data"]["path"] = str(Path(experiment.data.path).absolute())  # `generate` may run elsewhere
    # The normalisation in the codec's description tells datasets apart that were encoded from other videos.
    decoding = json.loads(
        json.dumps(
            {
                "codec": datasets.codec.spec(),
                "fps": datasets.fps,
                "height": datasets.height,
                "width": datasets.width,
            }
        )
    )
    if path.is_file():
        try:
            stored = json.loads(path.read_text())
            if "source" in stored:
                raise InputError(f"{folder} holds converted weights: give another --run folder and --init={folder}")
            same = (stored["fingerprint"], stored["init"]) == (mark, origin)
            same_data = all(stored[name] == value for name, value in decoding.items())
        except InputError:
            raise
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path} is damaged: give another --run folder") from None
        if not same:
            other = difference(stored, described, origin)
            raise InputError(f"{folder} belongs to another experiment{other}: give another --run folder")
        if base is not None and stored.get("base") != base:
            raise InputError(f"{init} is not what {folder} was trained beside: give the weights that it began with")
        if not same_data:
            raise InputError(
                f"{folder} was trained on a dataset encoded otherwise (see {path}): give another --run folder"
            )
        return
    if folder.exists() and any(p != unfinished(path) for p in folder.iterdir()):
        raise InputError(f"{folder} is not empty and no run folder: give another --run folder")
    run = {
        "fingerprint": mark,
        "init": origin,
        **({"base": base} if base else {}),
        **decoding,
        "experiment": described,
    }
    write_file(path, json.dumps(run, indent=1) + "\n")
