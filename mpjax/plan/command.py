"""`python -m mpjax plan`: what a step would take on a TPU slice, from the TPU's own compiler on this machine."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import jax

from mpjax.drawing import png
from mpjax.errors import InputError
from mpjax.experiment import Experiment
from mpjax.parallel.mesh import MeshShape, parse_mesh
from mpjax.plan.chips import CHIPS, parse_slice
from mpjax.plan.figure import scaling_figures
from mpjax.plan.meshes import spread
from mpjax.plan.row import DECODE, DEFAULTS, GENERATE, Options, Row
from mpjax.plan.search import MOST_COMPILES, Parameters, search
from mpjax.plan.steps import network_inputs, tokens_of, topology_devices
from mpjax.plan.store import Store
from mpjax.plan.tables import sentence, table
from mpjax.provenance import commit, versions
from mpjax.training.trainable import partition
from mpjax.whole_files import write_file, write_json

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """The flags of the command.

    Attributes:
        topologies: slices, `v5p:8x8x8`, or with `search` chips, `v5p`.
        mesh: `fsdp=256,context=2`; empty is `default_mesh`.
        steps: `stage 1`, …, `generate` or `decode`; empty are all stages and `generate`, or with `search` all stages.
        segments: of a video in training.
        search: look for the smallest slice that fits.
        options: how they are compiled, and what they are compared with.
        compiles: of the search for a step, at most.
        cache: folder of compiled rows.
        out: folder for `plan.md`, `plan.json` and figures, or None.
    """

    topologies: tuple[str, ...]
    mesh: str = ""
    steps: tuple[str, ...] = ()
    segments: int | None = None
    search: bool = False
    options: Options = DEFAULTS
    compiles: int = MOST_COMPILES
    cache: Path = Path("runs/plan")
    out: Path | None = None


def plan(experiment: Experiment, request: Request, say: Say = print) -> list[Row]:
    """Compiles, says and returns the rows.

    Raises:
        InputError: a flag names nothing that exists, or the TPU compiler is not installed.
    """
    stages = [f"stage {i + 1}" for i in range(len(experiment.training.stages))]
    usual = stages if request.search else [*stages, GENERATE]
    known = usual if request.search else [*usual, DECODE]
    steps = request.steps or tuple(usual)
    for step in steps:
        if step not in known:
            raise InputError(f"--step is {step!r}: it must be one of {', '.join(known)}")
    if request.compiles < 1:
        raise InputError(f"--compiles is {request.compiles}: it must be at least 1")
    _check(request.options, request.search, steps)
    segments = experiment.training.segments if request.segments is None else request.segments
    if segments < 1:
        raise InputError(f"--segments is {segments}: it must be at least 1")
    for topology in request.topologies:
        if not request.search:
            parse_slice(topology)
            topology_devices(topology)
        elif topology not in CHIPS:
            raise InputError(f"--topology is {topology!r}: with --search it is one of {', '.join(CHIPS)}")
        else:
            topology_devices(f"{topology}:{CHIPS[topology].slices[0]}")  # is the compiler there?
    store = Store(request.cache, request.options)
    rows = []
    for topology, step in itertools.product(request.topologies, steps):
        if request.search:
            rows += _search(experiment, topology, step, segments, store, say, request.compiles)
        else:
            shape = parse_mesh(request.mesh) if request.mesh else default_mesh(experiment, topology, step)
            rows.append(store.row(experiment, topology, shape, step, segments))
            say(sentence(rows[-1]))
    if request.out is not None:
        _write(request.out, rows)
    return rows


def _check(options: Options, search: bool, steps: Sequence[str]) -> None:
    """Whether every option has an effect."""
    if options.memory is not None and not 0 < options.memory < float("inf"):
        raise InputError(f"--memory is {options.memory / 1e9:g}: give the gigabytes of a card, such as 80")
    if options.memory is not None and search:
        raise InputError("--memory has no effect on --search, whose chips have their own: leave one of them out")
    if options.offload and DECODE not in steps:
        raise InputError("--offload is of decode: add --step=decode")


def _write(out: Path, rows: Sequence[Row]) -> None:
    """`plan.md`, `plan.json` with where they come from, and figures if a step is there for several slices."""
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "plan.md", table(rows))
    source = dict(commit=commit(), versions=dict(versions(), libtpu=version("libtpu")))
    write_json(out / "plan.json", dict(**source, rows=[dataclasses.asdict(row) for row in rows]))
    for name, figure in scaling_figures(rows).items():
        write_file(out / f"{name}.png", png(figure))


def default_mesh(experiment: Experiment, topology: str, step: str) -> MeshShape:
    """As `meshes.spread`; to generate one video, context takes as many as divide the heads, and shares its tokens."""
    size = parse_slice(topology).size
    context = math.gcd(size, experiment.model.heads) if step == GENERATE else 1
    return spread(size, experiment.model.width, context=context)


def _search(
    experiment: Experiment, chip: str, step: str, segments: int, store: Store, say: Say, compiles: int
) -> list[Row]:
    def compile_one(experiment: Experiment, topology: str, shape: MeshShape) -> Row:
        row = store.row(experiment, topology, shape, step, segments)
        say(sentence(row))
        return row

    trainable = experiment.training.stages[int(step.removeprefix("stage ")) - 1].trainable
    best = search(experiment, count(experiment, trainable), tokens_of(experiment), chip, compile_one, compiles)
    if best is None:
        say(f"{step}: found no slice of {chip} that fits")
        return []
    say(f"{step}: the smallest slice of {chip} found to fit, and the best mesh found there:\n{sentence(best)}")
    return [best]


def count(experiment: Experiment, trainable: str) -> Parameters:
    """Parameters of the network, and those of a trainable set.

    Raises:
        InputError: the run owns a part of the network alone, which is another state.
    """
    if (name := experiment.training.base_field) is not None:
        raise InputError(f"--search does not know the state of training.{name}: name a slice, --topology=v5e:2x2")
    params, _ = network_inputs(experiment)
    size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    return Parameters(all=size(params), trained=size(partition(params, trainable)[0]))
