"""The backbone on an accelerator: blocks in bfloat16 against float32, and the time of one denoise step.

    python -m benchmarks.backbone --config=configs/framepack_f1_13b.py --out=results/backbone/gpu.json
    python -m benchmarks.backbone --config=configs/framepack_f1_13b.py:smoke --out=/tmp/backbone.json

Weights are random, are stored in bfloat16 and lie on the first device alone; the size of the latents is the config's.
Any field can be changed, as in `train`: `--config.data.height=256`. One denoise step is one network evaluation and
Euler's update of a segment, without what an encoder or a decoder does.

The result is one JSON file. The command ends with 1 if a part is outside the tolerance of `benchmarks/precision.py` or
the step gives numbers that are not finite. What does not fit the device is refused before anything is computed;
`XLA_PYTHON_CLIENT_MEM_FRACTION=0.95` gives a process nearly all of it.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.measuring import check_memory, compiled, peak_bytes, planned_bytes, timed
from benchmarks.precision import differences, first_layers, judged, part_program
from benchmarks.random_network import Inputs, input_tokens, random_inputs, random_params
from benchmarks.record import check_out, description
from mpjax import config, experiment
from mpjax.errors import InputError
from mpjax.experiment import Experiment
from mpjax.models.flops import velocity_flops
from mpjax.models.memorypack import Denoiser

WEIGHTS = jnp.bfloat16
LEAST_REPEATS = 6  # of a 95 % interval of the median


def denoise_step(denoiser: Denoiser, params: dict, inputs: Inputs) -> jax.Array:
    """Noisy latents after the first of 25 steps of Euler's method."""
    return inputs.x_t + denoiser.velocity(params, *inputs) / 25


def measure(loaded: Experiment, *, seed: int, repeats: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Everything of the result that does not depend on how the command was called.

    Raises:
        InputError: a device too small for weights or programs; before anything is computed, once they are compiled.
    """
    arch = dataclasses.replace(loaded.model, encoders=None, dtype="bfloat16")
    denoiser, device, size = Denoiser(arch, loaded.guidance), jax.devices()[0], loaded.latent_size
    weights_key, inputs_key = jax.random.split(jax.random.key(seed))
    tokens = input_tokens(arch, size)
    flops = velocity_flops(arch, tokens)

    # -- Compile ---------------------------------------------------------------------------------------------------
    params = jax.eval_shape(lambda key: random_params(arch, key, WEIGHTS), weights_key)
    inputs = jax.eval_shape(lambda key: random_inputs(arch, size, key), inputs_key)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    weights_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    say(f"{count:,} parameters, {weights_bytes / 1e9:.1f} GB; {tokens.latents} + {tokens.context} tokens")
    check_memory("the network's weights", weights_bytes, device)
    step, compile_seconds = compiled(jax.jit(lambda *args: denoise_step(denoiser, *args)), params, inputs)
    check_memory("a denoise step", planned_bytes(step), device)
    layers = jax.eval_shape(first_layers, params)
    exact, _ = compiled(part_program(denoiser, "float32"), layers, inputs)
    outputs = jax.eval_shape(part_program(denoiser, "float32"), layers, inputs)
    rounded, _ = compiled(part_program(denoiser, "bfloat16"), layers, inputs, outputs)
    for dtype, program in (("float32", exact), ("bfloat16", rounded)):
        check_memory(f"a block in {dtype}", planned_bytes(program), device)
    say(f"compiled in {compile_seconds:.1f} s; {sum(flops.values()) / 1e12:.3g} TFLOP a step")

    # -- Time ------------------------------------------------------------------------------------------------------
    params, inputs = random_params(arch, weights_key, WEIGHTS), random_inputs(arch, size, inputs_key)
    seconds = timed(lambda: step(params, inputs), repeats)
    peak, finite = peak_bytes(device), bool(jnp.isfinite(step(params, inputs)).all())
    rate = sum(flops.values()) / seconds["median"] / 1e12
    say(f"{seconds['median']:.4g} s a step, {rate:.3g} TFLOP/s")

    # -- Compare ---------------------------------------------------------------------------------------------------
    params = first_layers(params)  # the others are freed: a block in float32 needs their memory
    reference = exact(params, inputs)
    precision = judged(differences(rounded(params, inputs, reference), reference))
    for name, row in precision["parts"].items():
        say(f"{name}: relative error {row['relative_l2']:.2e}, largest {row['largest']:.2e} of the mean square")
    return {
        "parameters": count,
        "weights_bytes": weights_bytes,
        "latents": [arch.framepack.segment_frames, *size, arch.channels],
        "tokens": config.to_dict(tokens),
        "step": {
            "compile_seconds": compile_seconds,
            "seconds": seconds,
            "flops": {**flops, "total": sum(flops.values())},
            "tflops_per_second": rate,
            "planned_bytes": planned_bytes(step),
            "peak_bytes": peak,
            "finite": finite,
        },
        "precision": precision,
        "passed": finite and precision["passed"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; bad input prints one sentence and returns 2, numbers outside the tolerance return 1."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="benchmarks.backbone", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--config", required=True, help="config file; fields as --config.data.height=256")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--repeats", type=int, default=20, help="timed steps (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs")
    args, overrides = parser.parse_known_args(arguments)
    try:
        if args.repeats < LEAST_REPEATS:
            raise InputError(f"--repeats is {args.repeats}: give at least {LEAST_REPEATS}")
        loaded = experiment.load(args.config, overrides)
        check_out(args.out)
        result = measure(loaded, seed=args.seed, repeats=args.repeats)
    except InputError as error:
        print(f"benchmarks.backbone: {error}", file=sys.stderr)
        return 2
    described = description("benchmarks.backbone", arguments, args.seed)
    args.out.write_text(json.dumps(described | result, indent=2) + "\n")
    print(f"{args.out}: {'passed' if result['passed'] else 'FAILED'}")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
