"""`python kept_programs.py FOLDER`: a run of the linear network, twice, in processes of their own.

Both keep their programs in FOLDER/compiled. Prints a JSON line for each: how many programs it found there, and how many
it had to compile.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path

from mpjax.training import loop
from mpjax.training.instruments import Instruments
from tests.training.linear_runs import SKIP, Small, run


def train(folder, name):
    import jax

    counted: Counter = Counter()
    jax.monitoring.register_event_listener(lambda event, **_: counted.update([event]))
    loop.Denoiser = Small
    run(folder, name, SKIP, instruments=Instruments(compilation_cache=folder / "compiled"))
    events = ("/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses")
    print(json.dumps([counted[event] for event in events]), flush=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name in ("first", "second"):
        if not (child := os.fork()):  # importing is most of what a start costs
            train(folder, name)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(1)
