"""What each verb of the command line does with its arguments; imports are here late, so that --help is quick."""

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpjax.errors import InputError
from mpjax.whole_files import check_folder

if TYPE_CHECKING:
    from mpjax.data.raw.geometry import Geometry
    from mpjax.experiment import ClipsData


def train(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax train`."""
    from mpjax import experiment
    from mpjax.parallel import platform
    from mpjax.parallel.processes import joined
    from mpjax.training.instruments import Instruments
    from mpjax.training.loop import train

    if args.platform:
        platform.use(args.platform)
    instruments = Instruments(
        profile_steps=args.profile_steps, check_numerics=args.check_numerics, compilation_cache=args.compilation_cache
    )
    loaded = experiment.load(args.config, overrides)
    with joined(loaded.processes):
        if args.platform:
            platform.check(args.platform)  # starts the devices, which must come after joining
        train(loaded, args.run, init=args.init, mirror=args.mirror, instruments=instruments)


def encode(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax encode`."""
    from mpjax import experiment
    from mpjax.conditioning.pretrained import pretrained
    from mpjax.data import beam
    from mpjax.data.clip_encoding import ClipEncoder
    from mpjax.data.clips import encode_folder, encode_list

    loaded = experiment.load(args.config, overrides)
    data = loaded.data
    if not isinstance(data, experiment.ClipsData):
        raise InputError(
            f"{args.config}: data.kind is {data.kind!r}, which needs no encoding: give a config with kind='clips'"
        )
    if args.beam_options and not args.beam_runner:
        raise InputError("--beam_options belongs to a Beam pipeline: give --beam_runner, too")
    output = args.output or Path(data.path)
    check_folder(output, "give --output a folder")
    segment_frames = loaded.model.framepack.segment_frames
    encoder = ClipEncoder(
        codec=data.codec(),
        encoders=pretrained(Path(data.encoders)) if data.encoders else None,
        segment_frames=segment_frames,
    )
    options: dict[str, Any] = {
        "encoder": encoder,
        "fps": data.fps,
        "max_segments": data.longest(segment_frames),
        "validation_fraction": data.validation_fraction,
        "seed": loaded.seed,
        "beam_options": beam.pipeline_options(args.beam_runner, shlex.split(args.beam_options))
        if args.beam_runner
        else None,
    }
    if args.input.suffix == ".jsonl":
        encode_list(args.input, output, **options)
    else:
        encode_folder(args.input, output, height=data.height, width=data.width, **options)


def scan(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax data scan`."""
    from mpjax.data.raw.command import scan_to_folder

    check_folder(args.output, "give --output a folder")
    data, geometry = _clips_of(args.config, overrides)
    scan_to_folder(
        args.input,
        args.output,
        videos=args.videos,
        geometry=geometry,
        filters=data.filters,
        shots=data.shots,
        deadline_seconds=args.deadline,
    )


def inspect(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax data inspect`."""
    from mpjax.data.inspect_dataset import inspect_dataset
    from mpjax.data.latents import DATASET_FILE
    from mpjax.data.raw.command import inspect_raw
    from mpjax.data.raw.entries import no_table
    from mpjax.data.raw.geometry import Geometry

    if args.config is None:
        _no_overrides(overrides)
    if args.html is not None:
        check_folder(args.html.parent, "give --html a file in a folder")
        if args.html.is_dir():
            raise InputError(f"{args.html} is a folder: give --html a file in it")
    geometry = Geometry() if args.config is None else _clips_of(args.config, overrides)[1]
    if (args.path / DATASET_FILE).is_file():
        if args.videos is not None:
            raise no_table(args.videos, args.path)
        print(inspect_dataset(args.path).write(args.html))
        return
    print(inspect_raw(args.path, videos=args.videos, geometry=geometry, page=args.html))


def _clips_of(config: str, overrides: list[str]) -> "tuple[ClipsData, Geometry]":
    """The data of a config and what its clips are."""
    from mpjax import experiment

    loaded = experiment.load(config, overrides)
    data = loaded.data
    if not isinstance(data, experiment.ClipsData):
        raise InputError(f"{config}: data.kind is {data.kind!r}, which needs no clips: give a config with kind='clips'")
    return data, data.geometry(loaded.model.framepack.segment_frames)


def generate(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax generate`."""
    from mpjax.generation.command import generate

    _no_overrides(overrides)
    generate(args)


def recall(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax recall`."""
    from mpjax.evaluation.recall_command import recall

    _no_overrides(overrides)
    recall(args)


def suite(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax suite`."""
    from mpjax.evaluation import suite

    check_folder(args.out)
    print("\n".join(suite.write_suite(suite.load(args.config, overrides), args.weights, args.out)))


def study(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax study`."""
    from mpjax.evaluation.study.page import write_study

    _no_overrides(overrides)
    check_folder(args.out)
    lines = write_study(args.folders, args.out, question=args.question, votes_per_rater=args.votes_per_rater)
    print("\n".join(lines))


def elo(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax elo`."""
    from mpjax.evaluation.study.standings import lead_words, write_standings

    _no_overrides(overrides)
    if args.lead is not None:
        if args.votes or args.key or args.out:
            raise InputError("--lead is answered without votes: give it alone, or leave it out")
        print(lead_words(args.lead))
        return
    if not (args.votes and args.key and args.out):
        raise InputError("give files of votes, --key and --out; or --lead alone, for the votes that a lead takes")
    check_folder(args.out)
    print("\n".join(write_standings(args.votes, args.key, args.out, clusters=args.resample)))


def report(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax report`."""
    from mpjax.evaluation.comparison.command import write_comparison

    _no_overrides(overrides)
    check_folder(args.out)
    print(write_comparison(args.folders, args.out, ratings=args.elo, strips=args.strips))


def evaluate(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax evaluate`."""
    from mpjax.evaluation.evaluate_command import evaluate

    _no_overrides(overrides)
    evaluate(args)


def convert(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax convert`."""
    from mpjax.interop.convert.command import convert

    _no_overrides(overrides)
    convert(args)


def plan(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax plan`."""
    # The TPU compiler asks the network which TPU it runs on, unless it is told; the tracing is done by the CPU.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several plans at once
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
    from mpjax import experiment
    from mpjax.plan.command import Request, plan
    from mpjax.plan.row import Options

    request = Request(
        topologies=tuple(args.topology),
        mesh=args.mesh or "",
        steps=tuple(args.step or ()),
        segments=args.segments,
        search=args.search,
        options=Options(
            quick=args.quick,
            memory=None if args.memory is None else 1e9 * args.memory,
            offload=args.offload,
        ),
        compiles=args.compiles,
        cache=args.cache,
        out=args.out,
    )
    plan(experiment.load(args.config, overrides), request)


def bench(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax bench`."""
    # Several processes share a GPU: none may take it whole.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        from benchmarks.side_by_side.command import bench
        from benchmarks.side_by_side.request import Request
    except ModuleNotFoundError as error:
        raise InputError("benchmarks/ is not beside the package: run the command in a checkout's root") from error

    request = Request(
        rival=args.rival,
        variant=args.variant and tuple(args.variant),
        config=args.config,
        overrides=tuple(overrides),
        rounds=args.rounds,
        threads=args.threads,
        weights=args.weights,
        segments=args.segments,
        scratch=args.scratch,
    )
    bench(args.cases, request, args.out, words=args.words)


def demo(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax demo`."""
    _no_overrides(overrides)
    # The demo compiles a dozen small programs: at level 1 they compile twice as fast and run as fast.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
    from mpjax.demo import demo

    demo(args.run)


def ablate(args: argparse.Namespace, overrides: list[str]) -> None:
    """`mpjax ablate`."""
    # Many small programs, as in the demo.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
    from mpjax.ablation import design
    from mpjax.ablation.command import ablate
    from mpjax.ablation.schedule import parse_share

    out = args.out or Path("results/recallworld") / Path(args.config.partition(":")[0]).stem
    words = [
        "python",
        "-m",
        "mpjax",
        "ablate",
        f"--config={args.config}",
        f"--run={args.run}",
        *overrides,
    ]
    share = parse_share(args.share)
    ablate(design.load(args.config, overrides), args.run, out, share=share, command=shlex.join(words))


def _no_overrides(overrides: list[str]) -> None:
    if overrides:
        raise InputError(f"{overrides[0]} is no flag of this command: run it with --help for the list")
