"""What bfloat16 costs: parts of the network at full width, in bfloat16 and in float32 from the same weights and inputs.

The parts are everything in front of the blocks (embed), the first dual block, the first single block and the output
head. Every part in bfloat16 reads what the part before it gives in float32, so that errors do not add up from part to
part, and what is reported for a part is its own.

Tolerance. A number in bfloat16 has 8 bits, so a rounding costs up to 2^-8 and some 2^-9.2 in the mean square. From the
input of a block to its output some ten roundings follow one another; independent of each other they make 2^-7.5, and
twice to three times that is allowed.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.random_network import Inputs
from mpjax.models.memorypack import Denoiser
from mpjax.models.mmdit import DualBlock, SingleBlock

RELATIVE_L2 = 2.0**-6  # ‖a − b‖ / ‖b‖
LARGEST = 2.0**-3  # max |a − b| / rms(b)

Outputs = dict[str, jax.Array]


def first_layers(params: dict) -> dict:
    """Weights of the parts: a copy in which the stacks of blocks are one layer deep."""
    return params | {"blocks": jax.tree.map(lambda leaf: leaf[:1], params["blocks"])}


def part_outputs(denoiser: Denoiser, dtype: str, params: dict, inputs: Inputs, given: Outputs | None = None) -> Outputs:
    """Outputs of the parts, computed in `dtype`, as `Denoiser.velocity` computes them.

    Args:
        denoiser: the network; its own dtype does not matter.
        dtype: `float32` (products at the highest precision that the device has) or `bfloat16`.
        params: of `first_layers`.
        inputs: what the network reads.
        given: outputs that a part reads in place of those of the part before it.
    """
    arch = dataclasses.replace(denoiser.architecture, dtype=dtype, dual_blocks=1, single_blocks=1)
    denoiser = dataclasses.replace(denoiser, architecture=arch)
    compute = jnp.dtype(dtype)
    sizes = (arch.heads, arch.mlp_width, compute)
    dual, single = (
        {"params": jax.tree.map(lambda leaf: leaf[0], params["blocks"][name])}
        for name in ("dual_blocks", "single_blocks")
    )
    found: Outputs = {}

    def read(name: str) -> jax.Array:
        return (found if given is None else given)[name].astype(compute)

    with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
        front = denoiser.embed(params, *inputs)
        n = front.latents.shape[1]
        mask = jnp.concatenate([jnp.ones((1, n), bool), front.context_mask], 1)
        found |= {"embed.latents": front.latents, "embed.context": front.context, "embed.temb": front.temb}
        streams, temb = (read("embed.latents"), read("embed.context")), read("embed.temb")
        (latents, context), _ = DualBlock(*sizes).apply(dual, streams, temb, front.table, mask)
        found |= {"dual_block.latents": latents, "dual_block.context": context}
        joined = jnp.concatenate([read("dual_block.latents"), read("dual_block.context")], 1)
        found["single_block"], _ = SingleBlock(*sizes).apply(single, joined, temb, front.table, mask)
        tokens = read("single_block")[:, :n]
        found["head"] = denoiser.project(params, tokens, front.replace(temb=temb), inputs.x_t)
    return found


@jax.jit
def differences(outputs: Outputs, reference: Outputs) -> dict[str, dict[str, jax.Array]]:
    """For each part ‖a − b‖ / ‖b‖ and max |a − b| / rms(b) of outputs a and reference b, in float32."""

    def compare(a: jax.Array, b: jax.Array) -> dict[str, jax.Array]:
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        error, size = a - b, jnp.square(b).mean() ** 0.5
        return {"relative_l2": jnp.square(error).mean() ** 0.5 / size, "largest": jnp.abs(error).max() / size}

    return {name: compare(outputs[name], reference[name]) for name in reference}


def judged(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The differences as numbers, the tolerance beside them, and whether all are within it (NaN is not)."""
    parts = {}
    for name, row in found.items():
        numbers = {key: float(value) for key, value in row.items()}
        passed = numbers["relative_l2"] <= RELATIVE_L2 and numbers["largest"] <= LARGEST
        parts[name] = {**numbers, "passed": passed}
    return {
        "tolerance": {"relative_l2": RELATIVE_L2, "largest": LARGEST},
        "parts": parts,
        "passed": all(row["passed"] for row in parts.values()),
    }


def part_program(denoiser: Denoiser, dtype: str) -> Any:
    """`part_outputs` in a dtype, jitted: (params, inputs[, given]) → outputs."""
    return jax.jit(functools.partial(part_outputs, denoiser, dtype))
