"""One update of a training stage on one accelerator: its time, its memory, and its MFU.

    export XLA_PYTHON_CLIENT_MEM_FRACTION=0.95
    python -m benchmarks.train_step --config=configs/framepack_f1_13b.py --stage=2 --peak-tflops=989 --out=h200.json
    python -m benchmarks.train_step --config=configs/framepack_f1_13b.py:smoke --stage=2 --segments=2 --out=/tmp/a.json

The first command is the 13B's stage 2, its output head under Direct Forcing, on an H200: parameters and averages in
float32 are 104 GB. Weights and videos are random, one video an update (times `training.micro_batches`); the program is
the one that `train` runs on one device. Any field can be changed, as in `train`.

MFU is what the mathematics asks for (`plan/operations.py`) over what the card could do in the measured time:
`--peak-tflops` is the dense bfloat16 figure of its data sheet. Without it there is no MFU.

The result is one JSON file. The command ends with 1 if the loss is not finite. What does not fit the device is refused
before anything is computed.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.measuring import check_memory, peak_bytes, planned_bytes, timed
from benchmarks.record import check_out, description
from mpjax import experiment
from mpjax.data.batch import Batch
from mpjax.errors import InputError
from mpjax.experiment import Experiment
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.rules import batch_sharding
from mpjax.parameters import merge
from mpjax.plan.operations import train_operations
from mpjax.plan.steps import example_batch, lower_train_step, tokens_of
from mpjax.training.compiled_step import state_factory
from mpjax.training.trainable import partition

LEAST_REPEATS = 6  # of a 95 % interval of the median


def random_batch(like: Batch, key: jax.Array) -> Batch:
    """Videos of normal latents and prompts without meaning; every segment counts."""
    leaves, structure = jax.tree.flatten(like)

    def draw(number: int, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jax.random.normal(jax.random.fold_in(key, number), leaf.shape, leaf.dtype)
        return jnp.ones(leaf.shape, leaf.dtype)

    batch: Batch = jax.tree.unflatten(structure, [draw(n, leaf) for n, leaf in enumerate(leaves)])
    return batch.replace(weight=jnp.ones(like.weight.shape, like.weight.dtype))


def measure(
    loaded: Experiment,
    *,
    number: int,
    segments: int,
    peak_tflops: float | None,
    repeats: int,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Everything of the result that does not depend on how the command was called.

    Args:
        loaded: what is trained.
        number: of the stage, from 1.
        segments: of a video.
        peak_tflops: of the card; None gives no MFU.
        repeats: timed updates.
        say: receives progress.

    Raises:
        InputError: a device too small; before anything is computed, once the update is compiled.
    """
    training = loaded.training
    mesh, stage, videos = MeshShape().build(), training.stages[number - 1], training.micro_batches
    device, denoiser = mesh.devices.flat[0], Denoiser(loaded.model, loaded.guidance)
    shapes = example_batch(loaded, videos, segments)
    operations = train_operations(loaded, stage, tokens_of(loaded), videos, segments)

    # -- Compile ---------------------------------------------------------------------------------------------------
    start = time.perf_counter()
    update = lower_train_step(loaded, number, mesh, segments).compile()
    compile_seconds = time.perf_counter() - start
    planned = planned_bytes(update)
    say(f"compiled in {compile_seconds:.1f} s: {planned / 1e9:.1f} GB, {operations.useful / 1e12:.3g} TFLOP an update")
    check_memory("an update", planned, device)

    # -- Time ------------------------------------------------------------------------------------------------------
    factory = state_factory(loaded, denoiser, shapes, mesh)
    state = factory.create(stage).replace(base=factory.fresh_base(stage))
    whole = merge(state.params, state.base)
    counted = [sum(x.size for x in jax.tree.leaves(t)) for t in (whole, partition(state.params, stage.trainable)[0])]
    batch = jax.device_put(random_batch(shapes, jax.random.key(loaded.seed)), batch_sharding(mesh, videos))
    losses = []

    def run() -> Any:
        nonlocal state
        state, metrics = update(state, batch)
        losses.append(metrics["loss"])
        return metrics

    seconds = timed(run, repeats)
    peak, finite = peak_bytes(device), bool(jnp.isfinite(jnp.stack(losses)).all())
    mfu = None if peak_tflops is None else operations.useful / seconds["median"] / (peak_tflops * 1e12)
    say(f"{seconds['median']:.4g} s an update" + ("" if mfu is None else f", MFU {mfu:.1%}"))
    return {
        "parameters": counted[0],
        "trained_parameters": counted[1],
        "videos": videos,
        "segments": segments,
        "compile_seconds": compile_seconds,
        "seconds": seconds,
        "useful_flops": operations.useful,
        "executed_flops": operations.executed,
        "tflops_per_second": operations.useful / seconds["median"] / 1e12,
        "peak_tflops": peak_tflops,
        "mfu": mfu,
        "planned_bytes": planned,
        "peak_bytes": peak,
        "finite": finite,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; bad input prints one sentence and returns 2, a loss that is not finite returns 1."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="benchmarks.train_step", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--config", required=True, help="config file; fields as --config.data.height=256")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--stage", type=int, default=1, help="of the config, from 1 (default: 1)")
    parser.add_argument("--segments", type=int, default=5, help="of a video (default: 5)")
    parser.add_argument("--peak-tflops", type=float, help="dense bfloat16 TFLOP/s of the card, by its data sheet")
    parser.add_argument("--repeats", type=int, default=10, help="timed updates (default: 10)")
    args, overrides = parser.parse_known_args(arguments)
    try:
        loaded = experiment.load(args.config, overrides)
        stages = len(loaded.training.stages)
        if not 1 <= args.stage <= stages:
            raise InputError(f"--stage is {args.stage}: {args.config} has stages 1 to {stages}")
        if args.repeats < LEAST_REPEATS:
            raise InputError(f"--repeats is {args.repeats}: give at least {LEAST_REPEATS}")
        if args.segments < 1 or (args.peak_tflops is not None and args.peak_tflops <= 0):
            raise InputError("--segments must be at least 1, and --peak-tflops above 0")
        check_out(args.out)
        result = measure(
            loaded, number=args.stage, segments=args.segments, peak_tflops=args.peak_tflops, repeats=args.repeats
        )
    except InputError as error:
        print(f"benchmarks.train_step: {error}", file=sys.stderr)
        return 2
    described = description("benchmarks.train_step", arguments, loaded.seed)
    args.out.write_text(json.dumps({**described, "stage": args.stage, **result}, indent=2) + "\n")
    print(f"{args.out}: {'done' if result['finite'] else 'FAILED: the loss is not finite'}")
    return 0 if result["finite"] else 1


if __name__ == "__main__":
    sys.exit(main())
