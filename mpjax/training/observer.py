"""What is looked at during training: the held-out loss, and samples."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from mpjax.data.batch import Batch
from mpjax.data.filmstrip import png
from mpjax.datasets import Datasets, open_datasets
from mpjax.experiment import Experiment
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.processes import is_first
from mpjax.parallel.rows import local_rows, place_rows
from mpjax.training.gradients import Objective
from mpjax.training.metrics import Log
from mpjax.training.validation import comparison, make_sampler, make_validation

Say = Callable[[str], None]


class Observer:
    """Held-out loss and samples; compiled once a run, their batches read once."""

    def __init__(
        self,
        experiment: Experiment,
        datasets: Datasets,
        denoiser: Denoiser,
        placement: jax.sharding.NamedSharding,
        folder: Path,
        say: Say,
    ):
        self._experiment, self._datasets, self._placement = experiment, datasets, placement
        self._folder, self._say = folder, say
        self._draw = make_sampler(denoiser, experiment.sampler, experiment.classifier_free)
        replicated = jax.sharding.NamedSharding(placement.mesh, jax.sharding.PartitionSpec())
        self._whole = jax.jit(lambda x: x, out_shardings=replicated)
        self._validators: dict[Objective, Callable] = {}
        self._batches: list[Batch] = []

    def _held_out(self) -> list[Batch]:
        if not self._batches and self._datasets.validation is not None:
            count = self._experiment.training.validation_batches
            size = self._experiment.training.batch_size
            rows = local_rows(self._placement, size)
            batches = (self._datasets.validation[i] for i in range(count))
            self._batches = [place_rows(batch, rows, self._placement, size) for batch in batches]
        return self._batches

    def validate(self, step: int, objective: Objective, params: dict, log: Log) -> None:
        """Logs the held-out loss."""
        if batches := self._held_out():
            validator = self._validators.setdefault(objective, make_validation(objective))
            loss = validator(params, batches)
            log.scalars(step, "validation", {"loss": loss})
            self._say(f"update {step}: held-out loss {loss:.4f}")

    def sample(self, step: int, params: dict, log: Log) -> None:
        """Draws the first held-out videos and writes a filmstrip, drawn above true."""
        count = min(self._experiment.training.samples, self._experiment.training.batch_size)
        datasets = open_datasets(self._experiment, range(count))  # every process draws them all
        batch = (datasets.validation or datasets.train)[0]
        drawn = self._whole(self._draw(params, batch))
        if not is_first():
            return
        picture = comparison(self._datasets.codec, batch, np.asarray(drawn))
        path = self._folder / "samples" / f"step_{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(picture))
        log.image(step, "samples", picture)
