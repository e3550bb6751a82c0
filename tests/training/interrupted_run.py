"""`python interrupted_run.py WHEN train …` is `python -m mpjax train …` that an interruption meets at a known moment.

WHEN is MOMENT:STEP with the moments
    log     kill -9 after the log line of that update, with all earlier checkpoints complete
    begin   kill -9 when its checkpoint is about to be written
    commit  kill -9 when its checkpoint is written but not yet renamed into place
    saved   kill -9 when its checkpoint is complete
    mirrored  as log, with the checkpoints copied to the mirror, too
    term    SIGTERM after the log line of that update
    read    kill -9 while its batch is read, with a word on how many updates it told the others that it began
    nan     its batch holds a NaN
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from mpjax.__main__ import main
from mpjax.training import loop
from mpjax.training.checkpoints import Checkpoints
from mpjax.training.metrics import MetricsLog
from mpjax.training.mirror import Mirror


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def after(cls, name, action):
    """Wraps a method: `action(step)` afterwards."""
    plain = getattr(cls, name)

    def wrapped(self, first, *rest):
        plain(self, first, *rest)
        action(self, int(first.step) if hasattr(first, "step") else first)

    setattr(cls, name, wrapped)


def arrange(moment, step):
    if moment == "term":
        after(MetricsLog, "scalars", lambda _, n: os.kill(os.getpid(), signal.SIGTERM) if n == step else None)
    elif moment == "log":
        save = Checkpoints.save
        Checkpoints.save = lambda self, state: (save(self, state), self.wait())
        after(MetricsLog, "scalars", lambda _, n: die() if n == step else None)
    elif moment == "mirrored":
        save, enter, mirrors = Checkpoints.save, Mirror.__enter__, []
        Checkpoints.save = lambda self, state: (save(self, state), self.wait())
        Mirror.__enter__ = lambda self: (mirrors.append(self), enter(self))[1]
        after(MetricsLog, "scalars", lambda _, n: (mirrors[0]._send_all(), die()) if n == step else None)
    elif moment == "begin":
        save = Checkpoints.save
        Checkpoints.save = lambda self, state: die() if int(state.step) == step else save(self, state)
    elif moment == "commit":
        rename = os.rename

        def guarded(source, target, *rest, **keywords):
            if Path(os.fspath(target)).name == str(step):
                die()
            rename(source, target, *rest, **keywords)

        os.rename = os.replace = guarded
    elif moment == "saved":
        after(Checkpoints, "save", lambda self, n: (self.wait(), die()) if n == step else None)
    elif moment == "read":
        on_device, begun = loop.on_device, [0]
        loop.began = begun.append

        def stuck(batches, place):
            for n, batch in enumerate(on_device(batches, place), 1):
                if n == step:
                    print("began", begun[-1], flush=True)
                    die()
                yield batch

        loop.on_device = stuck
    elif moment == "nan":
        read_from = loop.read_from

        def poisoned(dataset, first):
            for n, batch in enumerate(read_from(dataset, first), first + 1):
                yield batch.replace(segments=batch.segments * np.float32("nan")) if n == step else batch

        loop.read_from = poisoned
    else:
        raise ValueError(moment)


if __name__ == "__main__":
    moment, _, step = sys.argv[1].partition(":")
    arrange(moment, int(step))
    sys.exit(main(sys.argv[2:]))
