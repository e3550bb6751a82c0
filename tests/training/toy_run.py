"""A run that compiles in a second: linear regression with Adam, saved after every update while the next one goes on.

Everything around the update is what `train` uses: processes, rows of each host, checkpoints, log.
"""

import argparse
import os
import signal
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mpjax.errors import InputError
from mpjax.parallel.processes import Processes, barrier, began, is_first, joined, reached_stop
from mpjax.parallel.rows import local_rows, place_rows
from mpjax.stopping import Stopped
from mpjax.training.checkpoints import Checkpoints, Damaged
from mpjax.training.metrics import MetricsLog, NoLog
from mpjax.training.retention import Retention
from mpjax.training.state import TrainState

STEPS, ROWS, WIDTH = 12, 8, 512
OPTIMIZER = optax.adam(1e-2)


def row(step, index):
    return np.random.default_rng((step, index)).normal(size=WIDTH).astype(np.float32)


def fresh():
    w = jax.random.normal(jax.random.key(0), (WIDTH, 64))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params={"w": w},
        ema={"w": w},
        opt_state=OPTIMIZER.init({"w": w}),
        carry=(),
        key=jax.random.key(1),
    )


def update(state, x):
    def loss_of(params):
        return jnp.mean((x @ params["w"] - x[:, :64]) ** 2)

    loss, gradient = jax.value_and_grad(loss_of)(state.params)
    change, opt_state = OPTIMIZER.update(gradient, state.opt_state)
    params = optax.apply_updates(state.params, change)
    ema = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, state.ema, params)
    return state.replace(step=state.step + 1, params=params, ema=ema, opt_state=opt_state), loss


def meet_late(arguments):
    """All but the first process are late for a meeting; they run, so nothing but the meeting itself notices."""
    args = parse(arguments)
    with joined(Processes(count=args.processes, timeout=args.timeout)):
        if not is_first():
            time.sleep(10 * args.timeout)
        barrier("the meeting")
    return 0


def parse(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--timeout", type=float)
    return parser.parse_args(arguments)


def fail_alone(arguments):
    """All agree to stop, and then one process fails: `--run=FOLDER/N` says which."""
    args = parse(arguments)
    with joined(Processes(count=args.processes, timeout=args.timeout)):
        asked, step = threading.Event(), 0
        os.kill(os.getpid(), signal.SIGTERM)
        while not reached_stop(asked, step):
            step += 1
            barrier("the update")
        if jax.process_index() == int(args.run.name):
            raise InputError("the disk is full: make room")
        raise Stopped(signal.SIGTERM)


def read_apart(arguments):
    """The newest checkpoint is whole, but the second process cannot read it: first asked for, then on the way in."""
    args = parse(arguments)
    with joined(Processes(count=args.processes, timeout=args.timeout)):
        target, _, split, _ = placed()
        if not is_first():
            restore = ocp.StandardCheckpointHandler.restore

            def refuse(handler, folder, **keywords):
                if f"/{STEPS}/" in str(folder):
                    raise OSError("no route to the disk")
                return restore(handler, folder, **keywords)

            ocp.StandardCheckpointHandler.restore = refuse
        with Checkpoints(args.run / "checkpoints", Retention()) as checkpoints:
            try:
                with jax.set_mesh(split.mesh):  # as on the way back to the last good one
                    checkpoints.restore(STEPS, target)
            except (OSError, Damaged) as error:
                print(error)
            print(int(checkpoints.restore_newest(lambda _: target).step))
    return 0


def placed():
    """Shapes, their shardings, and the shardings of rows and of scalars, over all devices."""
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("all"))
    shapes = jax.eval_shape(fresh)
    shardings = jax.tree.map(lambda x: split if x.ndim == 2 else whole, shapes)
    target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    return target, shardings, split, whole


def main(arguments):
    args = parse(arguments)
    with joined(Processes(count=args.processes, timeout=args.timeout)):
        target, shardings, split, whole = placed()
        step_of = jax.jit(update, donate_argnums=0, out_shardings=(shardings, whole))
        rows = local_rows(split, ROWS)
        with Checkpoints(args.run / "checkpoints", Retention()) as checkpoints:
            state = checkpoints.restore_newest(lambda _: target)
            if state is None:
                state = jax.jit(fresh, out_shardings=shardings)()
            first = int(state.step)
            with MetricsLog(args.run, first) if is_first() else NoLog() as log:
                for step in range(first, STEPS):
                    batch = place_rows(np.stack([row(step, index) for index in rows]), rows, split, ROWS)
                    began(step + 1)
                    state, loss = step_of(state, batch)
                    log.scalars(step + 1, "train", {"loss": float(loss)})
                    checkpoints.save(state)
    return 0
