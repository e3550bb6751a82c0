"""TPU chips by the name that a topology begins with, and their data sheets.

Source: the pages "TPU v5e", "TPU v5p" and "TPU v6e" of Google Cloud's documentation: memory, peak bfloat16 and
bandwidths of one chip. Link bandwidth is that of all its links together.
"""

import dataclasses
import math
import re

from mpjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """A chip.

    Attributes:
        memory: bytes of HBM.
        flops: bfloat16 operations a second.
        memory_bandwidth: of HBM, bytes a second.
        link_bandwidth: to other chips, bytes a second.
        slices: shapes of a slice of this chip, smallest first.
    """

    memory: float
    flops: float
    memory_bandwidth: float
    link_bandwidth: float
    slices: tuple[str, ...]


_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")

CHIPS = {
    "v5e": Chip(memory=16e9, flops=197e12, memory_bandwidth=819e9, link_bandwidth=200e9, slices=_FLAT),
    "v5p": Chip(
        memory=95e9,
        flops=459e12,
        memory_bandwidth=2765e9,
        link_bandwidth=600e9,
        slices=("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    ),
    "v6e": Chip(memory=32e9, flops=918e12, memory_bandwidth=1640e9, link_bandwidth=400e9, slices=_FLAT),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A slice by name, such as `v5p:8x8x8`.

    Attributes:
        name: as libtpu takes it.
        chip: what it is made of.
        size: number of chips.
    """

    name: str
    chip: Chip
    size: int


def parse_slice(name: str) -> Slice:
    """`v5p:8x8x8` → the slice.

    Raises:
        InputError: the chip is unknown, or the rest is no shape.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", shape):
        raise InputError(f"topology is {name!r}: write CHIP:SHAPE, such as v5p:8x8x8; chips are {', '.join(CHIPS)}")
    return Slice(name=name, chip=CHIPS[kind], size=math.prod(map(int, shape.split("x"))))
