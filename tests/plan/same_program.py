"""`python same_program.py CONFIG FOLDER`: the programs of `train` and of `plan` on four devices, as text."""

import dataclasses
import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=4"

from mpjax import experiment
from mpjax.plan.steps import lower_train_step
from mpjax.training import loop


class Met(Exception):
    """The loop is about to make an update; holds the text of its program."""


def met(*arguments, **fields):
    step = stage_step(*arguments, **fields)

    def run(state, batch):
        raise Met(step.run.lower(state, batch).as_text())

    return dataclasses.replace(step, run=run)


stage_step, loop.stage_step = loop.stage_step, met
config, folder = sys.argv[1:]
flags = ["--config.mesh.fsdp=2", "--config.mesh.context=2", "--config.training.nonfinite.kind=skip"]
flags += ["--config.training.host_state=both"]
run = experiment.load(config, flags)
try:
    loop.train(run, Path(folder))
except Met as found:
    trained = str(found)
planned = lower_train_step(run, 1, run.mesh.build(), run.training.segments).as_text()
Path(folder, "train.txt").write_text(trained)
Path(folder, "plan.txt").write_text(planned)
