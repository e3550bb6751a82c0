"""The train step of a stage as a run compiles it: `loop` runs it, `plan` compiles it for chips that are not here."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from mpjax.data.batch import Batch
from mpjax.experiment import HOST_STATES, Experiment
from mpjax.models.memorypack import Denoiser
from mpjax.training.curriculum import Stage
from mpjax.training.gradients import Objective
from mpjax.training.state import StateFactory, TrainState
from mpjax.training.step import make_train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageStep:
    """The step of one stage.

    Attributes:
        objective: what it lowers.
        make: the function for an optimizer, as `make_train_step` gives it.
        run: that of the stage's own optimizer, jitted: the state goes out sharded as it came in, metrics whole.
    """

    objective: Objective
    make: Callable[[optax.GradientTransformation], Callable]
    run: jax.stages.Wrapped


def state_factory(experiment: Experiment, denoiser: Denoiser, batch: Batch, mesh: Mesh) -> StateFactory:
    """What makes the states of a run's stages; `batch` has the shapes and dtypes of an update's."""
    training = experiment.training
    return StateFactory(
        denoiser=denoiser,
        seed=experiment.seed,
        batch=batch,
        mesh=mesh,
        counts_faults=training.nonfinite.counts,
        lora=training.lora,
        base_dtype=training.held_in,
        base_quantization=training.base_quantization,
        trained=tuple(stage.trainable for stage in training.stages),
        waiting=HOST_STATES[training.host_state],
    )


def stage_step(
    experiment: Experiment,
    stage: Stage,
    denoiser: Denoiser,
    state: TrainState,
    mesh: Mesh | AbstractMesh,
    *,
    first_update: int,
    donate: bool = True,
) -> StageStep:
    """The step of a stage for states such as this one; it is called, or lowered, with the mesh set.

    Args:
        experiment: of which the training settings are read.
        stage: its forcing, time distribution, optimizer and trainable set.
        denoiser: the network.
        state: arrays on the mesh, or their shapes with shardings.
        mesh: devices.
        first_update: at which the stage begins.
        donate: let the new state take the memory of the old one.
    """
    training = experiment.training
    objective = Objective(
        denoiser=denoiser,
        forcing=stage.forcing,
        time=stage.time,
        bptt_depth=stage.bptt_depth,
        given=stage.given,
    )
    # A state goes out as it came in, else the next update would be compiled anew.
    shardings = jax.tree.map(lambda x: x.sharding, state)
    make = functools.partial(
        make_train_step,
        objective,
        trainable=stage.trainable,
        ema_decay=training.ema_decay,
        micro_batches=training.micro_batches,
        first_update=first_update,
        repeat=stage.repeat,
        shardings=shardings.params,
    )
    run = jax.jit(
        make(stage.optimizer.transformation(stage.steps)),
        donate_argnums=0 if donate else (),
        out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
    )
    return StageStep(objective=objective, make=make, run=run)
