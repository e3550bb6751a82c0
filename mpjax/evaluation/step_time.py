"""What an update costs: the train steps of two experiments, timed alternately in one process."""

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np

from mpjax.data.batch import Batch
from mpjax.datasets import open_datasets
from mpjax.diffusion.forcing import AnyForcing, Teacher
from mpjax.evaluation.statistics import median_interval
from mpjax.experiment import Experiment
from mpjax.models.memorypack import Denoiser
from mpjax.training.compiled_step import stage_step, state_factory
from mpjax.training.curriculum import total_steps
from mpjax.training.state import TrainState


def paired_step_times(reference: Experiment, other: Experiment, *, pairs: int = 60) -> dict:
    """Median ratio of step times, other over reference, each on the last batch of its last stage.

    Each pair times both steps, one right after the other, in alternating order, so that whatever else the machine does
    hits both.

    Args:
        reference, other: experiments; only their last stages are timed.
        pairs: 6 or more, for an interval of the median.

    Returns:
        {ratio, ci95, pairs, reference_ms, other_ms, reference_forwards, other_forwards}: medians; the interval is that
        of the median of the pairwise ratios (order statistics).
    """
    arms = [_compiled(reference), _compiled(other)]
    states = [state for _, state, _ in arms]
    seconds = np.zeros((pairs, 2))
    forwards = [0.0, 0.0]
    for pair in range(-3, pairs):  # the first rounds compile and warm the caches
        for arm in (0, 1) if pair % 2 else (1, 0):
            step, _, batch = arms[arm]
            start = time.perf_counter()
            states[arm], metrics = jax.block_until_ready(step(states[arm], batch))
            if pair >= 0:
                seconds[pair, arm] = time.perf_counter() - start
            forwards[arm] = float(metrics["forwards_per_update"])
    ratio, low, high = median_interval(seconds[:, 1] / seconds[:, 0])
    reference_ms, other_ms = np.median(seconds, axis=0) * 1e3
    return {
        "ratio": ratio,
        "ci95": [low, high],
        "pairs": pairs,
        "reference_ms": float(reference_ms),
        "other_ms": float(other_ms),
        "reference_forwards": forwards[0],
        "other_forwards": forwards[1],
    }


def step_time_ratio(experiment: Experiment, forcing: AnyForcing, *, pairs: int = 60) -> dict:
    """`paired_step_times` of one experiment under a forcing and under teacher forcing.

    Returns:
        {ratio, ci95, pairs, teacher_ms, direct_ms}; `direct_ms` is the time of `forcing`, whatever it is.
    """
    times = paired_step_times(with_forcing(experiment, Teacher()), with_forcing(experiment, forcing), pairs=pairs)
    shared = {name: times[name] for name in ("ratio", "ci95", "pairs")}
    return {**shared, "teacher_ms": times["reference_ms"], "direct_ms": times["other_ms"]}


def with_forcing(experiment: Experiment, forcing: AnyForcing) -> Experiment:
    """The experiment with another forcing in its last stage, whose batches are shown as often as that needs."""
    *stages, last = experiment.training.stages
    stages.append(dataclasses.replace(last, forcing=forcing, repeat=max(last.repeat, forcing.least_repeat)))
    return dataclasses.replace(experiment, training=dataclasses.replace(experiment.training, stages=tuple(stages)))


def _compiled(experiment: Experiment) -> tuple[Callable, TrainState, Batch]:
    """The train step of the last stage, a state, and the last batch."""
    training, stage = experiment.training, experiment.training.stages[-1]
    datasets = open_datasets(experiment)
    denoiser = Denoiser(experiment.model, experiment.guidance)
    batch = datasets.train[total_steps(training.stages) - 1]
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    mesh = experiment.mesh.build()
    factory = state_factory(experiment, denoiser, example, mesh)
    state = factory.create(stage).replace(base=factory.fresh_base(stage))
    step = stage_step(experiment, stage, denoiser, state, mesh, first_update=0, donate=False).run

    def on_mesh(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        with jax.set_mesh(mesh):
            return step(state, batch)

    return on_mesh, state, jax.device_put(batch)
