"""Run as a script: one conversion in a process of its own; prints by how much its anonymous memory rose after imports.

python tests/interop/convert/measured.py import|export|place|load|quantize SOURCE TARGET
"""

import json
import sys
import threading
import time
from pathlib import Path

import jax

from mpjax.interop.convert.exporting import export_run
from mpjax.interop.convert.importing import import_checkpoint
from mpjax.interop.stored_array import place_tree
from mpjax.models.quantization import Quantization
from mpjax.weights import load_run, stored_weights


def anonymous():
    """Bytes of memory that no file stands behind."""
    with Path("/proc/self/smaps_rollup").open() as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Anonymous:"))


def place(source, target):
    """Reads a PyTorch checkpoint into the one device; what it holds then is the checkpoint itself."""
    del target
    arrays, _ = stored_weights(source)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), arrays)
    jax.block_until_ready(place_tree(arrays, like))


def load(source, target):
    """Reads a run folder as `generate` does."""
    del target
    jax.block_until_ready(load_run(source).params)


def quantize(source, target):
    """Reads a run folder as `generate --quantize=int8` does."""
    del target
    jax.block_until_ready(load_run(source, quantization=Quantization()).params)


WORK = {"import": import_checkpoint, "export": export_run, "place": place, "load": load, "quantize": quantize}


def main(name, source, target):
    """Peak in bytes, seconds."""
    base = anonymous()
    peak, done = base, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    try:
        WORK[name](Path(source), Path(target))
    finally:
        done.set()
        watcher.join()
    return {"peak": peak - base, "seconds": time.monotonic() - started}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
