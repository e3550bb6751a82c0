"""The smallest slice of a kind that a step is found to fit, and the best mesh found there.

A closed form bounds the memory from below and throws out what cannot fit; bisection over the sizes of a slice compiles
some of the rest.
"""

import dataclasses
from collections.abc import Callable, Iterator

from mpjax.experiment import HOST_STATES, Experiment
from mpjax.models.architecture import REMAT_POLICIES
from mpjax.models.flops import Tokens
from mpjax.parallel.mesh import MeshShape
from mpjax.plan.chips import CHIPS, Slice, parse_slice
from mpjax.plan.meshes import spread
from mpjax.plan.row import MOST, Row

MOST_COMPILES = 10
ATTEMPTS = 2  # meshes, until a slice counts as too small
# Not `offload`: the data sheet says nothing of the way to the host and back.
TRIED = tuple(policy for policy in REMAT_POLICIES if policy != "offload")
Compile = Callable[[Experiment, str, MeshShape], Row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many parameters there are, and how many of them a stage trains."""

    all: int
    trained: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A mesh and a remat policy, and the bytes of HBM that a chip needs at least."""

    shape: MeshShape
    remat: str
    least: float


def least_memory(experiment: Experiment, parameters: Parameters, tokens: Tokens, shape: MeshShape, remat: str) -> float:
    """Bytes of HBM a chip cannot do without in a train step.

    Float32 parameters and averages, two moments and a gradient of what is trained, over fsdp · tensor, less what waits
    in the host (`training.host_state`); and where gradients pass the blocks, what each of them keeps of one video's
    tokens: its input, and without remat the outputs of its matrix products and of attention.
    """
    arch = experiment.model
    waiting = HOST_STATES[experiment.training.host_state]
    held = parameters.all * (1 if "ema" in waiting else 2) + parameters.trained * (1 if "opt_state" in waiting else 3)
    state = 4 * held / (shape.fsdp * shape.tensor)
    if parameters.trained < parameters.all // 2:
        return state
    n, width = (tokens.latents + tokens.context) / shape.context, arch.width
    # q, k, v, attention and the MLP's hidden layer are split over the tensor axis, the two outputs are not.
    products = 0 if remat == "full" else (4 * width + arch.mlp_width) / shape.tensor + 2 * width
    size = 2 if arch.dtype == "bfloat16" else 4
    return state + (arch.dual_blocks + arch.single_blocks) * n * (width + products) * size


def candidates(experiment: Experiment, parameters: Parameters, tokens: Tokens, place: Slice) -> list[Candidate]:
    """What may fit a slice, the most promising first: little communication, then little to compute again."""

    def possible() -> Iterator[Candidate]:
        for context in (1, 2, 4, 8):
            for tensor in (1, 2, 4, 8):
                if place.size % (context * tensor) or experiment.model.heads % (context * tensor):
                    continue
                usual = spread(place.size, experiment.model.width, context=context, tensor=tensor)
                # Smaller shares than whole tiles send more, and hold less.
                fullest = dataclasses.replace(usual, data=1, fsdp=usual.data * usual.fsdp)
                for shape in dict.fromkeys((usual, fullest)):
                    for remat in TRIED:
                        least = least_memory(experiment, parameters, tokens, shape, remat)
                        if least <= MOST * place.chip.memory:
                            yield Candidate(shape=shape, remat=remat, least=least)

    def order(c: Candidate) -> tuple:
        return c.shape.context * c.shape.tensor, c.shape.tensor, -c.shape.data, TRIED.index(c.remat)

    return sorted(possible(), key=order)


def search(
    experiment: Experiment,
    parameters: Parameters,
    tokens: Tokens,
    chip: str,
    compile_one: Compile,
    compiles: int = MOST_COMPILES,
) -> Row | None:
    """Bisects the sizes of a slice, then spends what is left of the budget on faster meshes of the smallest.

    Args:
        experiment: what runs; its remat policy and mesh are varied.
        parameters, tokens: of its network.
        chip: as `chips.CHIPS` names it.
        compile_one: compiles a step for (experiment, topology, mesh).
        compiles: programs, at most.

    Returns:
        The row with the fewest seconds a video of those that fit the smallest slice found; None: nothing fitted. A
        smaller slice may exist: a slice is given up after `ATTEMPTS` meshes, and what fits none is taken to be too
        small for all below it.
    """
    budget = compiles
    tried: set[tuple[str, Candidate]] = set()

    def options(name: str) -> list[Candidate]:
        found = candidates(experiment, parameters, tokens, parse_slice(name))
        return [option for option in found if (name, option) not in tried]

    def compiled(name: str, option: Candidate) -> Row:
        nonlocal budget
        budget -= 1
        tried.add((name, option))
        changed = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, remat=option.remat))
        return compile_one(changed, name, option.shape)

    def fitting(name: str) -> Row | None:
        """The bound is no measurement: where its least does not fit, the least of another mesh still may."""
        by_mesh: dict[MeshShape, Candidate] = {}
        for option in sorted(options(name), key=lambda option: option.least):
            by_mesh.setdefault(option.shape, option)
        for option in list(by_mesh.values())[: min(ATTEMPTS, budget)]:
            if (row := compiled(name, option)).fits:
                return row
        return None

    names = [f"{chip}:{shape}" for shape in CHIPS[chip].slices]
    low, high, best = 0, len(names), None
    while low < high and budget:
        middle = (low + high) // 2
        if (row := fitting(names[middle])) is not None:
            best, high = row, middle
        else:
            low = middle + 1
    if best is None:
        return None
    for option in options(best.topology)[:budget]:
        row = compiled(best.topology, option)
        if row.fits and row.seconds_a_video < best.seconds_a_video:
            best = row
    return best
