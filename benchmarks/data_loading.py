"""Does a pod wait for its data? Latents read a second, against what training consumes and against WebDataset.

    python -m benchmarks.data_loading --config=configs/framepack_f1_13b.py --out=results/data_loading.json

writes synthetic records of the config's shapes into a temporary folder, as ArrayRecord and as WebDataset tars with the
same arrays, and reads the same records of both in turn, each in a process of its own, so that they share whatever else
the machine does; the load when each began is in the result. First each reads them all once, not timed, and says a
checksum of the latents that it got, which must be the same. Both read from the page cache, since the files were just
written: the way from there to a batch is measured, not a disk. What training consumes follows from operations counted
by shape (`models/flops.py`): a segment takes four forward passes' worth (forward, backward, and the forward again that
rematerialisation repeats) at the utilisation that `--mfu` states. WebDataset with torch's DataLoader is read by the
Python of `--rival`, which has both installed.
"""

import argparse
import dataclasses
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import webdataset_reader
from benchmarks.random_network import input_tokens
from benchmarks.synthetic_records import record, write_dataset
from mpjax import experiment, provenance
from mpjax.data.latents import LatentDataset, open_dataset
from mpjax.data.pipeline import read_from
from mpjax.data.records import EMBEDDINGS
from mpjax.datasets import open_datasets
from mpjax.errors import InputError
from mpjax.experiment import ClipsData, Experiment
from mpjax.models.flops import velocity_flops

FORWARDS = 4  # forward, backward (as two), and forward again
PEAK = 989e12  # dense bfloat16 operations a second of one H200, as its maker states
PROMPT_TOKENS, IMAGE_TOKENS = 200, 729
SET_HERE = tuple(f"--config.{field}=" for field in ("training.batch_size", "training.micro_batches", "data.path"))


def of_config(path: str, overrides: Sequence[str]) -> Experiment:
    """Reads a config whose records can be drawn.

    Args:
        path: config file.
        overrides: fields of it, not those that this benchmark sets.

    Raises:
        InputError: see `experiment.load`; a field that is set here; or its clips have no embeddings.
    """
    for override in overrides:
        if override.startswith(SET_HERE):
            raise InputError(
                f"{override} has no effect: this benchmark sets the dataset and the size of a batch itself"
            )
    loaded = experiment.load(path, list(overrides))
    if not isinstance(loaded.data, ClipsData) or loaded.model.encoders is not None:
        raise InputError(f"{path} reads no clips with embeddings: give another config")
    return loaded


def consumed(loaded: Experiment, mfu: float) -> float:
    """Latent frames a second that training consumes on one H200 at a utilisation."""
    arch = dataclasses.replace(loaded.model, encoders=None)
    flops = FORWARDS * sum(velocity_flops(arch, input_tokens(arch, loaded.latent_size)).values())
    return arch.framepack.segment_frames * mfu * PEAK / flops


def synthetic(loaded: Experiment, folder: Path, clips: int) -> LatentDataset:
    """Records of the config's longest clips, drawn at random."""
    data, arch = loaded.data, loaded.model
    assert isinstance(data, ClipsData)
    frames = arch.framepack.segment_frames
    shape = (1 + frames * loaded.training.segments, *loaded.latent_size, arch.channels)
    widths = {"text": arch.text_width, "pooled": arch.pooled_width, "image": arch.image_width}
    tokens = {"text": (PROMPT_TOKENS,), "pooled": (), "image": (IMAGE_TOKENS,)}
    records = []
    for clip in range(clips):
        draw = np.random.default_rng(clip)
        embeddings: dict[str, Any] = {name: draw.normal(size=(*tokens[name], widths[name])) for name in EMBEDDINGS}
        latents = draw.normal(size=shape).astype(np.float32)
        records.append(record(clip, latents, segment_frames=frames, space_factor=data.space_factor, **embeddings))
    return write_dataset(
        folder,
        {"train": records},
        segment_frames=frames,
        mean=(0.5,) * arch.channels,
        std=(2.0,) * arch.channels,
        fps=float(data.fps),
        time_factor=data.time_factor,
        space_factor=data.space_factor,
        empty_prompt={"text": np.zeros((1, widths["text"])), "pooled": np.zeros(widths["pooled"])},
    )


def as_tars(dataset: LatentDataset, folder: Path, shard: int = 3) -> Iterator[Path]:
    """The same records as WebDataset samples: the bytes of every array, and their shapes as JSON."""
    source = dataset.source("train")
    folder.mkdir()
    for first in range(0, len(source), shard):
        path = folder / f"{first:06d}.tar"
        with tarfile.open(path, "w") as tar:
            for i in range(first, min(first + shard, len(source))):
                found = {name: source[i][name] for name in ("latents", *EMBEDDINGS)}
                parts = {f"{name}.bf16": array.tobytes() for name, array in found.items()}
                parts["shapes.json"] = json.dumps({name: array.shape for name, array in found.items()}).encode()
                for name, content in parts.items():
                    entry = tarfile.TarInfo(f"{i:06d}.{name}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
        yield path


def read(loaded: Experiment, epoch: int, batches: int, threads: int) -> dict[str, Any]:
    """Checksum of an epoch; then latent frames, and seconds from the first batch of a new reader on, not counted."""
    dataset = open_datasets(loaded).train
    reader = read_from(dataset, 0, threads=threads)
    checksum = sum(webdataset_reader.checksum(next(reader).segments) for _ in range(epoch))
    del reader
    reader = read_from(dataset, epoch, threads=threads)
    next(reader)
    start, frames = time.perf_counter(), 0
    for _ in range(batches):
        b, s, f = next(reader).segments.shape[:3]
        frames += b * (1 + s * f)
    return {"latent_frames": frames, "seconds": time.perf_counter() - start, "checksum": checksum}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; bad input prints one sentence and returns 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="benchmarks.data_loading", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--config", required=True, help="run on clips with embeddings; fields as --config.data.height=256"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--clips", type=int, default=12, help="synthetic records (default: 12)")
    parser.add_argument("--batch", type=int, default=2, help="clips of a batch (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured, in turn (default: 3)")
    parser.add_argument("--epochs", type=int, default=3, help="times that a round reads all records (default: 3)")
    parser.add_argument("--workers", type=int, default=1, help="reader threads, and DataLoader's workers (default: 1)")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of peak operations training reaches")
    parser.add_argument("--rival", help="a Python with torch and webdataset (default: no rival is measured)")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)  # the dataset, in the process that reads it
    args, overrides = parser.parse_known_args(arguments)
    try:
        print(_measure(args, overrides, arguments))
    except InputError as error:
        print(f"benchmarks.data_loading: {error}", file=sys.stderr)
        return 2
    return 0


def _measure(args: argparse.Namespace, given: list[str], arguments: list[str]) -> str:
    if args.clips % args.batch:
        raise InputError(f"--clips {args.clips} is no multiple of --batch {args.batch}: an epoch is whole batches")
    epoch = args.clips // args.batch
    of_config(args.config, given)
    overrides = [*given, f"--config.training.batch_size={args.batch}", "--config.training.micro_batches=1"]
    if args.read:
        overrides.append(f"--config.data.path={args.read}")
        return json.dumps(read(experiment.load(args.config, overrides), epoch, args.epochs * epoch, args.workers))
    loaded = experiment.load(args.config, overrides)
    with tempfile.TemporaryDirectory() as folder:
        dataset = synthetic(loaded, Path(folder) / "records", args.clips)
        tars = [str(path) for path in as_tars(open_dataset(dataset.path), Path(folder) / "tars")]
        ours = [sys.executable, "-m", "benchmarks.data_loading", *arguments, f"--read={dataset.path}"]
        sizes = {
            "batch": args.batch,
            "batches": args.epochs * epoch,
            "workers": args.workers,
            "segment_frames": loaded.model.framepack.segment_frames,
            "text_tokens": 512,
            "tars": tars,
        }
        commands = {"ArrayRecord, Grain": ours}
        if args.rival:
            commands["WebDataset, DataLoader"] = [args.rival, webdataset_reader.__file__, json.dumps(sizes)]
        rounds: dict[str, list[dict]] = {name: [] for name in commands}
        for _ in range(args.rounds):
            for name, command in commands.items():
                load = os.getloadavg()[0]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise InputError(f"{name} failed: {done.stderr.strip()[-300:]}")
                rounds[name].append(json.loads(done.stdout.splitlines()[-1]) | {"load_before": load})
    checksums = {name: sorted({found["checksum"] for found in runs}) for name, runs in rounds.items()}
    if len(set(itertools.chain(*checksums.values()))) != 1:
        raise InputError(f"the readers got other samples than each other: checksums {checksums}")
    rates = {
        name: float(np.median([found["latent_frames"] / found["seconds"] for found in runs]))
        for name, runs in rounds.items()
    }
    needed = consumed(loaded, args.mfu)
    result: dict[str, Any] = {
        "latent_frames_per_second": rates,
        "consumed_by_one_h200": needed,
        "mfu": args.mfu,
        "headroom": {name: rate / needed for name, rate in rates.items()},
        "files_in": "page cache",
        "rounds": rounds,
        "sizes": {key: value for key, value in sizes.items() if key != "tars"},
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        origin = {
            "command": " ".join(["python", "-m", "benchmarks.data_loading", *arguments]),
            "commit": provenance.commit(),
            "versions": provenance.versions(),
            "machine": provenance.machine(),
        }
        args.out.write_text(json.dumps(origin | result, indent=1) + "\n")
    return json.dumps({key: result[key] for key in ("latent_frames_per_second", "consumed_by_one_h200", "headroom")})


if __name__ == "__main__":
    sys.exit(main())
