"""A cell: one arm with one seed, as an experiment to train and evaluations to make."""

import dataclasses
import hashlib
import json
from pathlib import Path

import jax

from mpjax import config, experiment
from mpjax.ablation.design import Ablation, Arm, DriftEvaluation, Evaluation, RecallEvaluation, merged
from mpjax.data.recallworld.world import World
from mpjax.datasets import open_datasets
from mpjax.errors import InputError
from mpjax.experiment import Experiment, RecallWorldData
from mpjax.models.memorypack import Denoiser
from mpjax.models.quantization import with_kernels
from mpjax.training.compiled_step import state_factory

FIELDS_THAT_COUNT = ("gaps", "clips_per_gap", "segments", "given", "clips", "seed", "world", "control")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm with one seed.

    Attributes:
        arm: its arm.
        seed: of training.
        experiment: what is trained.
        recall, drift: evaluations with the worlds they take place in.
        init: the cell whose weights it starts from.
        fingerprint: of everything that decides its numbers.
    """

    arm: Arm
    seed: int
    experiment: Experiment
    recall: tuple[tuple[RecallEvaluation, World], ...]
    drift: tuple[tuple[DriftEvaluation, World], ...]
    init: "Cell | None"
    fingerprint: str

    @property
    def name(self) -> str:
        """ARM/seed_N, also its folder below the run folder."""
        return f"{self.arm.name}/seed_{self.seed}"

    def folder(self, run: Path) -> Path:
        """Its run folder."""
        return run / self.arm.name / f"seed_{self.seed}"


def make_cell(ablation: Ablation, arm: Arm, seed: int, ratio: float = 1.0) -> Cell:
    """The cell of an arm and a seed, checked.

    Args:
        ablation: the whole.
        arm, seed: which.
        ratio: step-time ratio by whose inverse its stages are scaled.

    Raises:
        InputError: naming arm and field.
    """
    trained = scaled(arm_experiment(ablation, arm, seed), ratio)
    recall = tuple((e, _world(trained, e, arm)) for e in ablation.recall if ablation.measures(e, arm))
    drift = tuple((e, _world(trained, e, arm)) for e in ablation.drift if ablation.measures(e, arm))
    init = make_cell(ablation, ablation.arm(arm.init), seed) if arm.init else None
    measured = [
        [e.name, {key: value for key, value in config.to_dict(e).items() if key in FIELDS_THAT_COUNT}]
        for e in ablation.every_evaluation
        if ablation.measures(e, arm)
    ]
    content = [experiment.fingerprint(trained), init and init.fingerprint, arm.curve, measured]
    mark = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return Cell(
        arm=arm,
        seed=seed,
        experiment=trained,
        recall=recall,
        drift=drift,
        init=init,
        fingerprint=mark,
    )


def arm_experiment(ablation: Ablation, arm: Arm, seed: int) -> Experiment:
    """The experiment of an arm at a seed.

    Raises:
        InputError: naming arm and field.
    """
    base = config.to_dict(config.build(Experiment, ablation.base, "config.base"))
    try:
        fields = merged(base, arm.overrides)
        return config.build(Experiment, {**fields, "seed": seed}, "config")
    except InputError as error:
        raise InputError(f"arm {arm.name}: {error}") from error


def scaled(trained: Experiment, ratio: float) -> Experiment:
    """The same experiment with 1 / ratio of the updates; warmup and curriculum keep their share of them."""
    if ratio == 1.0:
        return trained
    stages = []
    for stage in trained.training.stages:
        warmup = round(stage.optimizer.warmup_steps / ratio)
        stages.append(
            dataclasses.replace(
                stage,
                steps=max(1, round(stage.steps / ratio)),
                optimizer=dataclasses.replace(stage.optimizer, warmup_steps=warmup),
                curriculum=tuple((round(start / ratio), segments) for start, segments in stage.curriculum),
            )
        )
    return dataclasses.replace(trained, training=dataclasses.replace(trained.training, stages=tuple(stages)))


def check_shapes(cells: list[Cell]) -> None:
    """Traces every arm, so that what only its network can tell is found before anything is computed.

    Raises:
        InputError: data, mesh, trainable set or starting weights of an arm do not fit.
    """
    seen: dict[str, dict] = {}

    def shapes(cell: Cell) -> dict:
        if cell.arm.name not in seen:
            try:
                seen[cell.arm.name] = _parameter_shapes(cell.experiment)
            except InputError as error:
                raise InputError(f"arm {cell.arm.name}: {error}") from error
        return seen[cell.arm.name]

    for cell in cells:
        if cell.init is None and (name := cell.experiment.training.base_field) is not None:
            raise InputError(
                f"arm {cell.arm.name}: training.{name} trains beside weights that stay where they are: name their arm "
                "in init"
            )
        own = shapes(cell)
        if cell.init is not None:
            for name, shape in shapes(cell.init).items():
                if own.get(name, shape) != shape:
                    raise InputError(
                        f"arm {cell.arm.name}: {name} has shape {own[name]}, but {shape} in {cell.init.arm.name}, from "
                        "which it starts: use the same widths"
                    )


def _parameter_shapes(trained: Experiment) -> dict:
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), open_datasets(trained).train[0])
    denoiser = Denoiser(trained.model, trained.guidance)
    factory = state_factory(trained, denoiser, batch, trained.mesh.build())
    states = [factory.abstract(stage) for stage in trained.training.stages]
    params = with_kernels(states[0].averaged)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(params)}


def _world(trained: Experiment, evaluation: Evaluation, arm: Arm) -> World:
    """The world of an evaluation, which must suit the network."""
    place = f"evaluation {evaluation.name} of arm {arm.name}"
    if not isinstance(trained.data, RecallWorldData):
        raise InputError(f"{place}: data.kind is {trained.data.kind!r}, but an ablation is evaluated on 'recallworld'")
    try:
        fields = merged(config.to_dict(trained), {"data": {"world": evaluation.world}})
        changed = config.build(Experiment, fields, "config")
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    assert isinstance(changed.data, RecallWorldData)
    world = changed.data.world
    if isinstance(evaluation, RecallEvaluation):
        if not world.has_return:
            raise InputError(
                f"{place}: recall needs a scene with a return, R1 to R6, not {world.scene}: set world.scene"
            )
        try:
            evaluation.control.gaps(evaluation.control.world(world), evaluation.gaps)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
    elif world.has_return or world.toys != 1:
        raise InputError(f"{place}: drift needs scene D1 with one ball, or D2: set world.scene and world.balls")
    return world
