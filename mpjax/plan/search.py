"""The smallest slice of a kind that a step fits, and the best mesh there.

A closed form bounds the memory from below and throws out what cannot fit; bisection over the sizes of a slice compiles
the rest, at most `MOST_COMPILES` programs.
"""

import dataclasses
from collections.abc import Callable, Iterator

from mpjax.experiment import Experiment
from mpjax.models.architecture import REMAT_POLICIES
from mpjax.models.flops import Tokens
from mpjax.parallel.mesh import MeshShape
from mpjax.plan.chips import CHIPS, Slice, parse_slice
from mpjax.plan.row import MOST, Row

MOST_COMPILES = 10
Compile = Callable[[Experiment, str, MeshShape], Row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many parameters there are, and how many of them a stage trains."""

    all: int
    trained: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found: the best row on the smallest slice that fits, or None, and all rows it looked at."""

    best: Row | None
    rows: list[Row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A mesh and a remat policy, and the bytes of HBM that a chip needs at least."""

    shape: MeshShape
    remat: str
    least: float


def least_memory(experiment: Experiment, parameters: Parameters, tokens: Tokens, shape: MeshShape, remat: str) -> float:
    """Bytes of HBM a chip cannot do without in a train step.

    Float32 parameters and averages, two moments and a gradient of what is trained, over fsdp · tensor; and where
    gradients pass the blocks, what each of them keeps of one video's tokens: its input, and without remat the outputs
    of its matrix products.
    """
    arch = experiment.model
    state = 4 * (2 * parameters.all + 3 * parameters.trained) / (shape.fsdp * shape.tensor)
    if parameters.trained < parameters.all // 2:
        return state
    n, width = (tokens.latents + tokens.context) / shape.context, arch.width
    # q, k, v and the MLP's hidden layer are split over the tensor axis, the two outputs are not.
    products = 0 if remat == "full" else (3 * width + arch.mlp_width) / shape.tensor + 2 * width
    size = 2 if arch.dtype == "bfloat16" else 4
    return state + (arch.dual_blocks + arch.single_blocks) * n * (width + products) * size


def candidates(experiment: Experiment, parameters: Parameters, tokens: Tokens, place: Slice) -> list[Candidate]:
    """What may fit a slice, the most promising first: little communication, then little to compute again."""

    def possible() -> Iterator[Candidate]:
        for context in (1, 2, 4, 8):
            for tensor in (1, 2, 4, 8):
                if place.size % (context * tensor) or experiment.model.heads % (context * tensor):
                    continue
                shape = MeshShape(fsdp=place.size // (context * tensor), context=context, tensor=tensor)
                for remat in REMAT_POLICIES:
                    least = least_memory(experiment, parameters, tokens, shape, remat)
                    if least <= MOST * place.chip.memory:
                        yield Candidate(shape=shape, remat=remat, least=least)

    def order(c: Candidate) -> tuple:
        return c.shape.context * c.shape.tensor, c.shape.tensor, REMAT_POLICIES.index(c.remat)

    return sorted(possible(), key=order)


def search(experiment: Experiment, parameters: Parameters, tokens: Tokens, chip: str, compile_one: Compile) -> Found:
    """Bisects the sizes of a slice, then spends what is left of the budget on faster meshes of the smallest.

    Args:
        experiment: what runs; its remat policy and mesh are varied.
        parameters, tokens: of its network.
        chip: as `chips.CHIPS` names it.
        compile_one: compiles a step for (experiment, topology, mesh).
    """
    rows: list[Row] = []
    tried: set[tuple[str, Candidate]] = set()

    def options(name: str) -> list[Candidate]:
        found = candidates(experiment, parameters, tokens, parse_slice(name))
        return [option for option in found if (name, option) not in tried]

    def compiled(name: str, option: Candidate) -> Row:
        tried.add((name, option))
        changed = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, remat=option.remat))
        rows.append(compile_one(changed, name, option.shape))
        return rows[-1]

    names = [f"{chip}:{shape}" for shape in CHIPS[chip].slices]
    low, high, best = 0, len(names), None
    while low < high and len(rows) < MOST_COMPILES:
        middle = (low + high) // 2
        # If the one that needs least does not fit, none will.
        least = min(options(names[middle]), key=lambda option: option.least, default=None)
        if least is not None and (row := compiled(names[middle], least)).fits:
            best, high = row, middle
        else:
            low = middle + 1
    if best is None:
        return Found(best=None, rows=rows)
    for option in options(best.topology)[: MOST_COMPILES - len(rows)]:
        row = compiled(best.topology, option)
        if row.fits and row.seconds < best.seconds:
            best = row
    return Found(best=best, rows=rows)
