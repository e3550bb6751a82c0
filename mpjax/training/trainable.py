"""Which parameters a stage trains, by name. Frozen ones are never differentiated: a small set is a cheap one."""

import re

import jax

from mpjax.errors import InputError
from mpjax.parameters import is_box, parameter_path

# Names → a pattern on the parameter path. The paper's Direct Forcing stage trains the final norm and projection.
TRAINABLE_SETS = {
    "all": r".*",
    "output_head": r"head/.*",
    "memory": r"(memorize|squeeze|recall)/.*",
    "lora": r".*/lora/.*",
    "lora_and_memory": r"(memorize|squeeze|recall)/.*|.*/lora/.*",
}
LORA_SETS = ("lora", "lora_and_memory")
# What ψ is computed from; where none of it trains, no gradient flows through time.
MEMORY_PATHS = re.compile(r"(memorize|squeeze|recall|context_embedder|image_projection|prompt_encoder|frame_encoder)/")


def partition(params: dict, *names: str) -> tuple[dict, dict]:
    """Splits parameters into (trainable, frozen): two trees of the full structure with None for the other's leaves.

    Args:
        params: of the network.
        names: of trainable sets, of which a parameter must be in one.

    Raises:
        InputError: no such set, or one matches no parameter of this model.
    """
    paths = jax.tree.map_with_path(lambda path, _: parameter_path(path), params, is_leaf=is_box)
    patterns = []
    for name in names:
        if name not in TRAINABLE_SETS:
            raise InputError(f"trainable is {name!r}: it must be one of {', '.join(TRAINABLE_SETS)}")
        patterns.append(re.compile(TRAINABLE_SETS[name]))
        if not any(patterns[-1].match(path) for path in jax.tree.leaves(paths)):
            raise InputError(f"trainable={name!r} matches no parameter: this model was built without that part")
    chosen = jax.tree.map(lambda path: any(pattern.match(path) for pattern in patterns), paths)
    trainable = jax.tree.map(lambda keep, x: x if keep else None, chosen, params, is_leaf=is_box)
    frozen = jax.tree.map(lambda keep, x: None if keep else x, chosen, params, is_leaf=is_box)
    return trainable, frozen


def trains_memory(trainable: dict) -> bool:
    """Whether any trainable parameter influences ψ."""
    paths = jax.tree.leaves_with_path(trainable)
    return any(MEMORY_PATHS.match(parameter_path(path)) for path, _ in paths)
