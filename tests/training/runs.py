"""A training run small enough for tests, and the processes that make, kill and continue it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("interrupted_run.py")
FLAGS = os.environ["XLA_FLAGS"]  # as tests/conftest.py sets them

# Two stages over 10 updates, saved every 3 and at each stage's end: 3, 6, 9 (between two sights of a batch), 10.
CONFIG = '''
"""The smoke run of RecallWorld R1 with the smallest network that has every part."""
from configs.recall_tiny import get_config as recall_tiny


def get_config(argument="two"):
    config = recall_tiny("smoke")
    config.model.update(
        head_dim=8, single_blocks=1, rope_axes=(4, 2, 2), text_width=8, pooled_width=8, image_width=8
    )
    config.model.encoders.width = 8
    adam = dict(learning_rate=1e-2)
    first = dict(steps=6, optimizer=adam, curriculum=[(0, 2), (3, 3)])
    echo = dict(forcing=dict(kind="echo"), repeat=2)
    second = dict(steps=4, **echo, trainable="output_head", optimizer=adam, curriculum=[(0, 3)])
    config.training.update(
        stages=[first, second][: 1 if argument == "one" else 2],
        segments=3, batch_size=2, log_every=1, validate_every=0, sample_every=0, checkpoint_every=3,
        keep_checkpoints=10, ema_decay=0.9,
    )
    return config
'''


def write_config(folder):
    path = folder / "small.py"
    path.write_text(CONFIG)
    return path


def environment(cache):
    return {
        **os.environ,
        "XLA_FLAGS": FLAGS,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
    }


def run(cache, config, folder, *arguments, interrupt=None):
    """`python -m mpjax train`, as it is or by the driver that interrupts it; returns the finished process."""
    program = ["-m", "mpjax"] if interrupt is None else [str(DRIVER), interrupt]
    command = [sys.executable, *program, "train", f"--config={config}", f"--run={folder}", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment(cache), cwd=ROOT, timeout=600, check=False
    )


def checkpoint(folder, step):
    """Every array of a checkpoint as (path, NumPy array), EMA and the rest."""
    arrays = []
    for item in ("ema", "state"):
        path = (folder / "checkpoints" / str(step) / item).absolute()
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            tree = reader.metadata(path).item_metadata.tree
            host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            read = reader.restore(path, ocp.args.PyTreeRestore(restore_args=host))
        arrays += [(item + jax.tree_util.keystr(p), np.asarray(x)) for p, x in jax.tree.leaves_with_path(read)]
    return arrays


def steps(folder):
    """Complete checkpoints of a run."""
    return sorted(
        int(p.parent.name) for p in folder.glob("checkpoints/[0-9]*/_CHECKPOINT_METADATA") if p.parent.name.isdigit()
    )


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
