"""Weight-only quantisation: kernels kept in 8 bits, with one scale for every block of inputs of an output.

    w ≈ q s,      s = max |w| of the block / largest q

Beside the bias of a quantised `layers.Dense` stands, in place of its `kernel`,

    quantized: {values: [in, out] int8 or float8_e4m3fn, scales: [blocks, out] float32},

with the axis of layers in front where blocks are scanned. `Dense` multiplies them out right before its product, so that
a scan over layers holds the kernels of one of them at a time (in a backward pass with any `remat` but "none"; with
"none" it keeps them all).

int8 rounds to the nearest of 255 equal steps: |w − q s| ≤ s / 2. float8 (4 bits of exponent, 3 of mantissa) rounds
relative to each weight: |w − q s| ≤ 2^-4 |w|, or 2^-10 s where that is more. Nothing is learned and no data is needed:
the same weights always give the same bits. A block with a weight that is not finite is not finite as a whole.

Why not qwix: it finds a weight by intercepting JAX's own functions inside a wrapped module, which leaves the products
of `Dense` (x @ W) as they are; and its arrays are nodes of their own, which files, shardings and adapters would have to
know.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mpjax.errors import InputError
from mpjax.models.targets import BLOCK_LAYERS, check_pattern, target_kernels

ENTRY = "quantized"  # in place of `kernel`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """8 bits.

    Attributes:
        dtype: of the values.
        largest: the value that a block's largest weight gets.
        whole: values are whole numbers, which a cast would not round to.
    """

    dtype: np.dtype
    largest: float
    whole: bool


FORMATS = {
    "int8": Format(dtype=np.dtype(np.int8), largest=127.0, whole=True),
    "fp8": Format(dtype=np.dtype(jnp.float8_e4m3fn), largest=448.0, whole=False),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantization:
    """Which kernels are quantised, and how.

    Attributes:
        format: `int8` or `fp8`.
        block: inputs that share a scale, at most; the blocks of a kernel are as equal as can be.
        targets: regular expression for the whole path of a quantised module (`models.targets`); the default leaves
            norms, modulations, embeddings and the output head as they are.
    """

    format: str = "int8"
    block: int = 64
    targets: str = BLOCK_LAYERS

    def __post_init__(self):
        if self.format not in FORMATS:
            raise InputError(f"format is {self.format!r}: it must be one of {', '.join(FORMATS)}")
        if self.block < 1:
            raise InputError(f"block is {self.block}: it must be at least 1")
        check_pattern(self.targets)

    @classmethod
    def parse(cls, text: str) -> "Quantization":
        """`FORMAT`, `FORMAT:BLOCK` or `FORMAT:BLOCK:TARGETS`, such as `int8:128` or `int8:128:blocks/.*`."""
        name, *rest = text.split(":", 2)
        block, targets = (*rest, *("", "")[len(rest) :])
        if name not in FORMATS or (rest and not block.isdecimal()):
            raise InputError(f"--quantize is {text!r}: write {' or '.join(FORMATS)}, or int8:128 for blocks of 128")
        try:
            return cls(format=name, block=int(block or cls.block), targets=targets or cls.targets)
        except InputError as error:
            raise InputError(f"--quantize is {text!r}: {error}") from None

    def block_of(self, inputs: int) -> int:
        """Inputs that share a scale in a kernel of so many; the last block of it may have fewer."""
        return -(-inputs // -(-inputs // self.block))

    def scales_shape(self, kernel: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the scales of a kernel `[…, in, out]`: `[…, blocks, out]`."""
        *stack, inputs, outputs = kernel
        return (*stack, -(-inputs // self.block_of(inputs)), outputs)


def block_scales(spec: Quantization, block: int, kernel: np.ndarray) -> np.ndarray:
    """float32 `[blocks, out]` of a kernel `[in, out]` in blocks of so many inputs, the last may have fewer."""
    sizes = np.abs(kernel.astype(np.float32))
    largest = np.maximum.reduceat(sizes, np.arange(0, kernel.shape[0], block), axis=0)
    return largest / np.float32(FORMATS[spec.format].largest)


def quantize(spec: Quantization, block: int, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A kernel `[in, out]`, float32 or bfloat16, as values `[in, out]` and scales `[blocks, out]`, on the host."""
    form, scales = FORMATS[spec.format], block_scales(spec, block, kernel)
    spread = np.repeat(np.where(scales == 0, np.float32(1), scales), block, axis=0)[: kernel.shape[0]]
    with np.errstate(invalid="ignore"):  # of weights that are not finite
        values = kernel.astype(np.float32) / spread
        if form.whole:
            values = np.rint(values, out=values)
        return values.astype(form.dtype), scales


def dequantize(entry: dict[str, jax.Array]) -> jax.Array:
    """The kernel `[in, out]` of an entry, in float32."""
    values, scales = entry["values"], entry["scales"]
    inputs, blocks = values.shape[-2], scales.shape[-2]
    spread = jnp.repeat(scales, -(-inputs // blocks), axis=-2)[..., :inputs, :]
    return values.astype(jnp.float32) * spread


def with_entries(spec: Quantization, tree: dict, entry: Callable[[Any], dict[str, Any]]) -> dict:
    """A tree of parameters whose targets have `entry(kernel)` for their kernel; boxed as the kernel was.

    Raises:
        InputError: no module is a target.
    """
    result = tree
    for path, kernel, names in target_kernels(spec.targets, tree):
        made = entry(kernel)
        if names is not None:
            made = {name: nn.LogicallyPartitioned(leaf, names) for name, leaf in made.items()}
        result = _exchanged(result, path, made)
    return result


def with_zeros(spec: Quantization, params: dict) -> dict:
    """A tree of parameters with entries of zeros, where only their shapes matter.

    Raises:
        InputError: as `with_entries`.
    """

    def entry(kernel: Any) -> dict[str, Any]:
        values = jnp.zeros(kernel.shape, FORMATS[spec.format].dtype)
        return {"values": values, "scales": jnp.zeros(spec.scales_shape(kernel.shape), jnp.float32)}

    return with_entries(spec, params, entry)


def quantized_shapes(spec: Quantization, shapes: dict) -> dict:
    """The tree of a quantised network, from that of the network; both of `jax.ShapeDtypeStruct`, boxed or not.

    Raises:
        InputError: as `with_entries`.
    """
    return jax.eval_shape(functools.partial(with_zeros, spec), shapes)


def with_kernels(tree: Any, dtype: str = "float32") -> Any:
    """The inverse of `quantized_shapes`: shapes of kernels of a dtype for the entries; leaves may be of any kind."""
    if not isinstance(tree, dict):
        return tree
    result = {key: with_kernels(value, dtype) for key, value in tree.items() if key != ENTRY}
    if ENTRY in tree:
        result["kernel"] = jax.ShapeDtypeStruct(tree[ENTRY]["values"].shape, dtype)
    return result


def _exchanged(tree: dict, path: tuple[str, ...], entry: dict) -> dict:
    if path:
        key, *rest = path
        return {**tree, key: _exchanged(tree[key], tuple(rest), entry)}
    return {ENTRY: entry} | {key: leaf for key, leaf in tree.items() if key != "kernel"}
