"""What weights in 8 bits cost, and what they save.

    python -m benchmarks.quantization --part=blocks --config=configs/framepack_f1_lora.py --out=results/quantization
    python -m benchmarks.quantization --part=outliers --config=configs/framepack_f1_lora.py --out=results/quantization
    python -m benchmarks.quantization --part=segment --config=configs/framepack_f1_lora.py --out=results/quantization
    python -m benchmarks.quantization --part=bytes --config=configs/framepack_f1_lora.py --out=results/quantization

`blocks`: the first dual and the first single block at the config's width, in bfloat16 with quantised kernels, against
float32 and against bfloat16 with the kernels as they are. Every part reads what the part before it gives in float32, so
that its error is its own. `outliers`: the same where one weight in a thousand is eight times as large. `segment`: 25
steps of UniPC for one segment, by a network with the config's parts but at most `MEDIUM` in size. `bytes`: weights of
the whole network as arguments of a program, by their shapes.

Weights are normal numbers in bfloat16. Inputs are a video of 64 × 64 pixels in the middle of its generation, with 64
text and 64 image tokens. PART.json and PART.md are written.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.precision import differences, part_program
from benchmarks.random_network import Inputs, random_inputs, random_params
from benchmarks.record import description
from mpjax import experiment
from mpjax.diffusion.samplers import UniPC
from mpjax.errors import InputError
from mpjax.experiment import Experiment
from mpjax.interop.quantized_arrays import quantized_arrays
from mpjax.interop.stored_array import StoredArray
from mpjax.interop.transformer_names import parameter_shapes
from mpjax.models.architecture import Architecture
from mpjax.models.memorypack import Denoiser
from mpjax.models.quantization import FORMATS, Quantization, quantized_shapes
from mpjax.models.targets import target_kernels
from mpjax.whole_files import check_folder, write_file, write_json

MEDIUM = {"heads": 4, "dual_blocks": 4, "single_blocks": 8, "text_width": 512, "pooled_width": 512, "image_width": 512}
BLOCKS = (32, 64, 128)
SIZE = (8, 8)  # latents
TOKENS = 64  # of the prompt, and of the image
OUTLIERS, FACTOR = 1e-3, 8.0
WITH_MODULATIONS = r"blocks/.*"

Say = Callable[[str], None]


def small_inputs(architecture: Architecture, key: jax.Array) -> Inputs:
    """`random_inputs` with fewer tokens."""
    inputs = random_inputs(architecture, SIZE, key)
    condition = inputs.condition
    return inputs._replace(
        condition=condition.replace(
            text=condition.text[:, :TOKENS],
            text_mask=condition.text_mask[:, :TOKENS],
            image=condition.image[:, :TOKENS],
        )
    )


def with_outliers(params: dict, key: jax.Array) -> dict:
    """Kernels of the blocks with one in a thousand weights eight times as large."""

    @jax.jit
    def draw(kernel: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.where(jax.random.uniform(key, kernel.shape) < OUTLIERS, FACTOR, 1.0).astype(kernel.dtype) * kernel

    flat, structure = jax.tree.flatten_with_path(params)
    leaves = [
        draw(leaf, jax.random.fold_in(key, number)) if path[0].key == "blocks" and path[-1].key == "kernel" else leaf
        for number, (path, leaf) in enumerate(flat)
    ]
    return jax.tree.unflatten(structure, leaves)


def quantized(spec: Quantization, params: dict) -> dict:
    """The parameters as they would be read from files under `--quantize`."""

    def stored(leaf: jax.Array) -> StoredArray:
        array = np.asarray(leaf)
        return StoredArray(shape=array.shape, dtype=array.dtype, read=array.__getitem__, block=1)

    return jax.tree.map(lambda array: jnp.asarray(array.all()), quantized_arrays(spec, jax.tree.map(stored, params)))


def specs() -> list[Quantization]:
    """Every format with every size of blocks, and with the modulations."""
    chosen: list[Quantization] = []
    for name in FORMATS:
        chosen += [Quantization(format=name, block=block) for block in BLOCKS]
        chosen.append(Quantization(format=name, targets=WITH_MODULATIONS))
    return chosen


def named(spec: Quantization | None) -> dict[str, Any]:
    """The first columns of a row."""
    if spec is None:
        return {"kernels": "bfloat16", "block": None, "modulations": False}
    return {"kernels": spec.format, "block": spec.block, "modulations": spec.targets == WITH_MODULATIONS}


def compared(name: str, outputs: dict, plain: dict, reference: dict) -> dict[str, float]:
    """Columns of how far an output is from that in float32 and from that in bfloat16 with kernels as they are."""
    row: dict[str, float] = {}
    for other, against in (("float32", reference), ("bfloat16", plain)):
        found = differences({name: outputs[name]}, {name: against[name]})[name]
        row |= {f"{key}_from_{other}": float(found[key]) for key in ("relative_l2", "largest")}
    return row


def block_errors(loaded: Experiment, keys: Sequence[jax.Array], say: Say, outliers: bool = False) -> list[dict]:
    """A row for each format, block size and output of a block."""
    arch = dataclasses.replace(loaded.model, encoders=None, dual_blocks=1, single_blocks=1)
    denoiser, inputs, rows = Denoiser(arch, loaded.guidance), small_inputs(arch, keys[0]), []
    params = random_params(arch, keys[1], jnp.bfloat16)
    if outliers:
        params = with_outliers(params, keys[2])
    exact, rounded = part_program(denoiser, "float32"), part_program(denoiser, "bfloat16")
    reference = exact(params, inputs)
    plain = rounded(params, inputs, reference)
    for spec in (None, *specs()):
        outputs = plain if spec is None else rounded(quantized(spec, params), inputs, reference)
        for part in (part for part in reference if "block" in part):
            rows.append(named(spec) | {"output": part} | compared(part, outputs, plain, reference))
        say(f"{named(spec)}: {rows[-1]['relative_l2_from_float32']:.2e} from float32")
    return rows


def segment_errors(loaded: Experiment, keys: Sequence[jax.Array], say: Say) -> list[dict]:
    """A row for each format and block size: the latents of a segment, drawn from the same noise."""
    smaller = {name: min(getattr(loaded.model, name), size) for name, size in MEDIUM.items()}
    arch = dataclasses.replace(loaded.model, encoders=None, **smaller)
    inputs, params = small_inputs(arch, keys[0]), random_params(arch, keys[1], jnp.bfloat16)
    sampler, given = UniPC(steps=25), (inputs.history, inputs.condition, inputs.memory)

    def drawn(dtype: str, params: dict) -> dict[str, jax.Array]:
        denoiser = Denoiser(dataclasses.replace(arch, dtype=dtype), loaded.guidance)
        with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
            return {"latents": draw(denoiser, params, inputs.x_t, given)}

    @functools.partial(jax.jit, static_argnums=0)
    def draw(denoiser: Denoiser, params: dict, noise: jax.Array, given: tuple) -> jax.Array:
        return sampler.sample(lambda x, t: denoiser.velocity(params, x, t, *given), noise)

    reference, plain = drawn("float32", params), drawn("bfloat16", params)
    rows = []
    for spec in (None, *specs()):
        outputs = plain if spec is None else drawn("bfloat16", quantized(spec, params))
        rows.append(named(spec) | compared("latents", outputs, plain, reference))
        say(f"{named(spec)}: {rows[-1]['relative_l2_from_float32']:.2e} from float32")
    return rows


def weight_bytes(loaded: Experiment, keys: Sequence[jax.Array], say: Say) -> list[dict]:
    """A row for each way to keep the weights; what is not quantised is bfloat16."""
    del keys
    shapes = parameter_shapes(dataclasses.replace(loaded.model, encoders=None))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), shapes)
    rows = []
    for spec in (None, *specs()):
        tree = shapes if spec is None else quantized_shapes(spec, shapes)
        chosen = [] if spec is None else target_kernels(spec.targets, shapes)
        sizes = {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes)),
            "quantized": sum(kernel.size for _, kernel, _ in chosen),
            "bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)),
        }
        rows.append(named(spec) | sizes)
        say(f"{named(spec)}: {sizes['bytes']:,} bytes")
    return rows


PARTS: dict[str, Callable[[Experiment, Sequence[jax.Array], Say], list[dict]]] = {
    "blocks": block_errors,
    "outliers": functools.partial(block_errors, outliers=True),
    "segment": segment_errors,
    "bytes": weight_bytes,
}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""

    def cell(value: Any) -> str:
        if value is None or isinstance(value, bool):
            return "yes" if value else "–"
        if isinstance(value, float):
            return f"{value:.2e}"
        return f"{value:,}" if isinstance(value, int) else value

    head = [[name.replace("_", " ") for name in rows[0]], ["---"] * len(rows[0])]
    lines = [*head, *([cell(value) for value in row.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: Sequence[str] | None = None, say: Say = print) -> int:
    """Runs the command; bad input prints one sentence and returns 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="benchmarks.quantization", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--part", required=True, choices=tuple(PARTS), help="what is measured")
    parser.add_argument("--config", required=True, help="config file; fields as --config.model.heads=8")
    parser.add_argument("--out", type=Path, required=True, help="folder for PART.json and PART.md")
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs")
    args, overrides = parser.parse_known_args(arguments)
    try:
        loaded = experiment.load(args.config, overrides)
        check_folder(args.out)
        rows = PARTS[args.part](loaded, tuple(jax.random.split(jax.random.key(args.seed), 3)), say)
    except InputError as error:
        print(f"benchmarks.quantization: {error}", file=sys.stderr)
        return 2
    write_json(
        args.out / f"{args.part}.json", description("benchmarks.quantization", arguments, args.seed) | {"rows": rows}
    )
    write_file(args.out / f"{args.part}.md", table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
