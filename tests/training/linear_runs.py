"""Whole runs of the loop with a network of six numbers, in this process; conftest.py has the poisoned batches."""

import os
import signal

import numpy as np

from mpjax import experiment
from mpjax.training import loop
from mpjax.training.metrics import MetricsLog
from tests.training import runs
from tests.training.linear_denoiser import LinearDenoiser, parameters

LAST = 10  # two stages, 6 and 4 updates, saved every 3 and at their ends
SKIP = {"kind": "skip", "limit": 2}
BACK = {"kind": "roll_back", "limit": 2}


class Small(LinearDenoiser):
    """The linear network, in place of the one that the config describes."""

    def __init__(self, architecture, guidance):
        super().__init__()

    def init(self, key, prompts, reference, segment):
        return parameters()


def settings(tmp_path, policy, *flags):
    config = runs.write_config(tmp_path)
    return experiment.load(str(config), [f"--config.training.nonfinite={policy!r}", *flags])


def run(tmp_path, name, policy, *flags, say=lambda _: None, **more):
    folder = tmp_path / name
    loop.train(settings(tmp_path, policy, *flags), folder, say=say, **more)
    return folder


def arrays(folder, step=LAST):
    return dict(runs.checkpoint(folder, step))


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def stop_after(monkeypatch, step):
    """SIGTERM after the log line of an update; the next one is made and saved."""
    plain = MetricsLog.scalars

    def scalars(self, number, group, values):
        plain(self, number, group, values)
        if number == step and group == "train":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(MetricsLog, "scalars", scalars)
