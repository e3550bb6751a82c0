"""Operations of a step, counted from its shapes (`models.flops`); a step of `train` or of `generate`."""

import dataclasses
from collections.abc import Mapping

from mpjax.experiment import Experiment
from mpjax.models.flops import Tokens, velocity_flops
from mpjax.training.curriculum import Stage

# Matrix products of n · m · head_dim each: four backward where the scores are kept. Splash keeps none and goes through
# them once for the queries and once for keys and values: three and four. `dots` keeps what its backward pass needs.
_BACKWARD, _SPLASH_BACKWARD = 4, 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operations:
    """Of one step, all chips together.

    Attributes:
        useful: what the mathematics asks for: of MFU.
        executed: with all that is computed again in the backward pass.
    """

    useful: float
    executed: float


def chips_at_work(shape: Mapping[str, int], videos: int) -> int:
    """Chips of a mesh that share the operations of so many videos; the rest of them repeat what others do.

    Shares of the batch help no further than there are videos; those of a sequence, and of heads, always do.
    """
    return min(shape["data"] * shape["fsdp"], videos) * shape["context"] * shape["tensor"]


def train_operations(experiment: Experiment, stage: Stage, tokens: Tokens, videos: int, segments: int) -> Operations:
    """Of one update: `segments` of so many videos. ψ's own update, below a hundredth, is not counted."""
    arch = experiment.model
    parts = velocity_flops(arch, tokens, videos)
    forward = sum(parts.values())
    blocks = parts["dual_blocks"] + parts["single_blocks"]
    n = tokens.latents + tokens.context
    product = videos * (arch.dual_blocks + arch.single_blocks) * 2 * n * n * arch.width
    evaluations = segments + (stage.forcing.forwards_per_segment - 1) * (segments - 1)
    again = {"none": 0.0, "dots": 0.0, "full": blocks, "offload": blocks}[arch.remat]
    again += (_SPLASH_BACKWARD - _BACKWARD) * product
    if stage.trainable == "output_head":  # behind all blocks: no gradient goes through them
        backward, again = 2 * parts["head"], 0.0
    elif stage.trainable == "all":
        backward = 2 * forward  # for what goes in, and for the parameters
    else:
        backward = forward  # frozen parameters have no gradient; that of the few others is not counted
    useful = evaluations * forward + segments * backward
    return Operations(useful=useful, executed=useful + segments * again)


def generate_operations(experiment: Experiment, tokens: Tokens) -> Operations:
    """Of one segment of one video."""
    evaluations = experiment.sampler.steps * (1 + experiment.classifier_free.active)
    total = evaluations * sum(velocity_flops(experiment.model, tokens).values())
    return Operations(useful=total, executed=total)
