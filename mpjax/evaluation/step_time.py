"""What a forcing costs: its train step against teacher forcing's, timed alternately in one process."""

import dataclasses
import time

import jax
import numpy as np

from mpjax.datasets import open_datasets
from mpjax.diffusion.forcing import AnyForcing, Teacher
from mpjax.evaluation.statistics import median_interval
from mpjax.experiment import Experiment
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.mesh import MeshShape
from mpjax.training.gradients import Objective
from mpjax.training.state import StateFactory
from mpjax.training.step import make_train_step


def step_time_ratio(experiment: Experiment, forcing: AnyForcing, *, pairs: int = 60) -> dict:
    """Median ratio of step times, forcing over teacher, on the batches of an experiment's last stage.

    Each pair times both steps on one batch, one right after the other, in alternating order, so that whatever else the
    machine does hits both.

    Returns:
        {ratio, ci95, pairs, teacher_ms, direct_ms, forwards: {teacher, other}}: medians; the interval is that of the
        median of the pairwise ratios (order statistics). `direct_ms` is the time of `forcing`, whatever it is.
    """
    stage = experiment.training.stages[-1]
    datasets = open_datasets(experiment)
    last_batch = sum(s.steps for s in experiment.training.stages) - 1
    denoiser = Denoiser(experiment.model, experiment.guidance)
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), datasets.train[0])
    factory = StateFactory(denoiser=denoiser, seed=experiment.seed, batch=example, mesh=MeshShape().build())
    steps, states = [], []
    arms: tuple[AnyForcing, ...] = (Teacher(), forcing)
    for kind in arms:
        objective = Objective(
            denoiser=denoiser, forcing=kind, time=stage.time, bptt_depth=stage.bptt_depth, given=stage.given
        )
        optimizer = stage.optimizer.transformation(stage.steps)
        step = make_train_step(
            objective,
            optimizer,
            trainable=stage.trainable,
            ema_decay=experiment.training.ema_decay,
            repeat=stage.repeat,
        )
        steps.append(jax.jit(step))
        states.append(factory.create(dataclasses.replace(stage, forcing=kind)))
    seconds = np.zeros((pairs, 2))
    forwards = [0.0, 0.0]
    for pair in range(-3, pairs):  # the first rounds compile and warm the caches
        batch = jax.device_put(datasets.train[last_batch])
        for arm in (0, 1) if pair % 2 else (1, 0):
            start = time.perf_counter()
            states[arm], metrics = jax.block_until_ready(steps[arm](states[arm], batch))
            if pair >= 0:
                seconds[pair, arm] = time.perf_counter() - start
            forwards[arm] = float(metrics["forwards_per_update"])
    ratio, low, high = median_interval(seconds[:, 1] / seconds[:, 0])
    teacher, other = np.median(seconds, axis=0) * 1e3
    return {
        "ratio": ratio,
        "ci95": [low, high],
        "pairs": pairs,
        "teacher_ms": float(teacher),
        "direct_ms": float(other),
        "forwards": {"teacher": forwards[0], "other": forwards[1]},
    }
