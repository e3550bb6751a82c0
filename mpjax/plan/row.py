"""One compiled step as a row of numbers: memory, traffic, and the time that the chip's data sheet allows."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator

import jax

from mpjax.experiment import Experiment
from mpjax.parallel.mesh import AXES, MeshShape
from mpjax.plan.chips import Slice, parse_slice
from mpjax.plan.hlo import traffic
from mpjax.plan.operations import Operations, chips_at_work, generate_operations, train_operations
from mpjax.plan.steps import (
    global_batch,
    lower_decode_step,
    lower_generate_step,
    lower_train_step,
    mesh_on,
    tokens_of,
    topology_devices,
)

GENERATE = "generate"
DECODE = "decode"
MOST = 0.9  # of a chip's memory that a step may take
_QUICK = "O1"  # XLA's level of optimisation with `--quick`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How a step is compiled, and what it is compared with.

    Attributes:
        quick: let the compiler optimise less.
        memory: bytes of the card that a chip stands in for; None: the chip's own.
        offload: keep the weights out of the way of `decode`.
    """

    quick: bool = False
    memory: float | None = None
    offload: bool = False


DEFAULTS = Options()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A step on a slice. Bytes are per chip; seconds are the least that the data sheet allows.

    Attributes:
        topology, mesh, remat: where and how; the mesh in words.
        step: `stage 1`, `stage 2`, …, `generate`, or `decode`, which is one tile.
        chips, videos, segments: how many; videos are the global batch.
        arguments, temporaries, peak: what the compiler plans in HBM; peak is all that lives at once.
        memory: of a chip: its HBM, or that of the card it stands in for.
        host: bytes of the host's memory that the program uses.
        error: what the compiler says where there is not enough memory for it to finish; then the rest is 0.
        useful, executed: operations of all chips (`operations`); 0 where they are not counted, those of a tile.
        accessed: bytes of HBM read and written.
        moved, collectives: bytes sent and number, by kind of collective.
        compute_seconds, memory_seconds, link_seconds: each alone at its data sheet's speed.
        kernels: attention kernels in the binary and how often they run.
        compile_seconds: of the compiler.
        quick: whether it optimised less (`--quick`).
        weights: in what the network's are held, in words, and whether the host has them meanwhile.
    """

    topology: str
    mesh: str
    remat: str
    step: str
    chips: int
    videos: int
    segments: int
    memory: float
    arguments: float = 0.0
    temporaries: float = 0.0
    peak: float = 0.0
    host: float = 0.0
    error: str = ""
    useful: float = 0.0
    executed: float = 0.0
    accessed: float = 0.0
    moved: dict[str, float] = dataclasses.field(default_factory=dict)
    collectives: dict[str, int] = dataclasses.field(default_factory=dict)
    compute_seconds: float = 0.0
    memory_seconds: float = 0.0
    link_seconds: float = 0.0
    kernels: dict[str, int] = dataclasses.field(default_factory=dict)
    compile_seconds: float = 0.0
    quick: bool = False
    weights: str = ""

    @property
    def fits(self) -> bool:
        """Whether it compiles into 90 % of the memory."""
        return not self.error and self.peak <= MOST * self.memory

    @property
    def seconds(self) -> float:
        """A step, if computing, memory and links overlap perfectly."""
        return max(self.compute_seconds, self.memory_seconds, self.link_seconds)

    @property
    def seconds_apart(self) -> float:
        """A step, if computing, memory and links wait for one another."""
        return self.compute_seconds + self.memory_seconds + self.link_seconds

    @property
    def seconds_a_video(self) -> float:
        """`seconds` for each video of the batch: what to compare meshes by, as they differ in their batch."""
        return self.seconds / self.videos

    @property
    def mfu(self) -> float:
        """Useful operations over what the chips could do in that time: an upper bound."""
        peak = parse_slice(self.topology).chip.flops * self.chips
        return self.useful / (peak * self.seconds) if self.seconds else 0.0


def describe(mesh: jax.sharding.Mesh) -> str:
    """`fsdp 256 × context 2`."""
    return " × ".join(f"{name} {mesh.shape[name]}" for name in AXES if mesh.shape[name] > 1) or "one chip"


@contextlib.contextmanager
def _optimising_less() -> Iterator[None]:
    before = jax.config.jax_optimization_level  # type: ignore[attr-defined]
    jax.config.update("jax_optimization_level", _QUICK)
    try:
        yield
    finally:
        jax.config.update("jax_optimization_level", before)


def _weights(experiment: Experiment, step: str, options: Options) -> str:
    """`bfloat16`, or `int8` where kernels are quantised; of what no stage trains, if that is something else."""
    training = experiment.training
    if step == DECODE and options.offload:
        return "in the host"
    if training.held_in is None:
        return "float32"
    quantization = training.base_quantization
    return training.held_in if quantization is None else quantization.format


def compile_row(
    experiment: Experiment,
    topology: str,
    shape: MeshShape,
    step: str,
    segments: int,
    options: Options = DEFAULTS,
) -> Row:
    """Compiles a step and reads what came out.

    Args:
        experiment: what runs.
        topology: the slice.
        shape: the mesh over it.
        step: `stage N`, `generate` or `decode`.
        segments: of a video in training.
        options: how it is compiled, and what it is compared with.

    Raises:
        InputError: the topology or the mesh does not exist.
    """
    place: Slice = parse_slice(topology)
    mesh = mesh_on(topology_devices(topology), shape)
    tokens = tokens_of(experiment)
    if step == GENERATE:
        videos = segments = 1
        lower = lambda: lower_generate_step(experiment, mesh)  # noqa: E731
        operations = generate_operations(experiment, tokens)
    elif step == DECODE:
        videos = segments = 1
        lower = lambda: lower_decode_step(experiment, mesh, beside=not options.offload)  # noqa: E731
        operations = Operations(useful=0.0, executed=0.0)
    else:
        number = int(step.removeprefix("stage "))
        stage = experiment.training.stages[number - 1]
        videos = global_batch(experiment, mesh)
        lower = lambda: lower_train_step(experiment, number, mesh, segments)  # noqa: E731
        operations = train_operations(experiment, stage, tokens, videos, segments)
    row = Row(
        topology=topology,
        mesh=describe(mesh),
        remat=experiment.model.remat,
        step=step,
        chips=place.size,
        videos=videos,
        segments=segments,
        memory=place.chip.memory if options.memory is None else options.memory,
        useful=operations.useful,
        executed=operations.executed,
        quick=options.quick,
        weights=_weights(experiment, step, options),
    )
    lowered = lower()
    start = time.monotonic()
    try:
        with _optimising_less() if options.quick else contextlib.nullcontext():
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        seconds = time.monotonic() - start
        return dataclasses.replace(row, error=" ".join(str(error).split())[:300], compile_seconds=seconds)
    seconds = time.monotonic() - start
    plan, found = compiled.memory_analysis(), traffic(compiled.as_text() or "")
    assert plan is not None  # the TPU compiler always has one
    held = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return dataclasses.replace(
        row,
        arguments=plan.argument_size_in_bytes,
        temporaries=plan.temp_size_in_bytes,
        peak=held + plan.temp_size_in_bytes + plan.generated_code_size_in_bytes,
        host=plan.host_argument_size_in_bytes + plan.host_temp_size_in_bytes,
        accessed=found.memory,
        moved=found.moved,
        collectives=found.count,
        compute_seconds=operations.executed / (chips_at_work(mesh.shape, videos) * place.chip.flops),
        memory_seconds=found.memory / place.chip.memory_bandwidth,
        link_seconds=sum(found.moved.values()) / place.chip.link_bandwidth,
        kernels={name: count for name, count in found.kernels.items() if "splash" in name},
        compile_seconds=seconds,
    )
