"""Which linear layers something is done to: a pattern on their path in the tree of parameters."""

import re
from typing import Any

import flax.linen as nn
import jax

from mpjax.errors import InputError, some_of
from mpjax.parameters import is_box, parameter_path

# Every linear layer of the blocks but the modulations, as musubi-tuner adapts them for FramePack.
BLOCK_LAYERS = r"blocks/.*/(to_q|to_k|to_v|to_out|to_out_context|up|down|proj_mlp|proj_out)"


def check_pattern(targets: str) -> None:
    """Whether this is a regular expression.

    Raises:
        InputError: it is none.
    """
    try:
        re.compile(targets)
    except re.error as error:
        raise InputError(f"targets is {targets!r}, no regular expression ({error}): mend it") from None


def target_kernels(targets: str, params: dict) -> list[tuple[tuple[str, ...], Any, tuple | None]]:
    """(path of the module, its kernel, logical axes of the kernel) of every module that the whole pattern matches.

    Args:
        targets: a regular expression for the path of a module with a `kernel`, as `blocks/dual_blocks/ff/up`.
        params: arrays, shapes or anything else that stands for them; the logical axes are None where it is not boxed.

    Raises:
        InputError: no such module matches.
    """
    pattern, found, known = re.compile(targets), [], []
    for path, leaf in jax.tree.leaves_with_path(params, is_leaf=is_box):
        *module, name = parameter_path(path).split("/")
        if name != "kernel":
            continue
        known.append("/".join(module))
        if pattern.fullmatch(known[-1]):
            boxed = isinstance(leaf, nn.LogicallyPartitioned)
            found.append((tuple(module), leaf.value if boxed else leaf, leaf.names if boxed else None))
    if not found:
        raise InputError(f"targets is {targets!r}, which is no module: modules are {some_of(known)}")
    return found
