"""RecallWorld R1 and R2 at tier T0: which long-term memory brings a toy back, and what of it matters?

    python -m mpjax ablate --config=configs/ablations/memory_t0.py --run=runs/ablation_memory_t0

Every arm makes the same updates on the same batches; `memory` is SemanticPack as the paper adopts it (Squeeze A),
`none` is FramePack alone, `none_anchored` too, with the toy shown in the first frame. `r2` and `r2_none` are the first
two on R2, where the prompt says which of two toys returns.
Arguments: `full` (default) and `smoke` (two arms of a few updates, for tests).
"""

from typing import Any

from ml_collections import ConfigDict

from configs import recall_tiny
from configs.ablations import shrink
from mpjax.errors import InputError

STEPS = 2000
BANK = 20  # segments, so that the longest clip of the evaluation fits
GAPS = (0, 1, 2, 3, 4, 6, 8, 12, 16)
TOKENS = {2: (4, 4, 8), 4: (4, 4, 4), 16: (1, 4, 4)}  # of a segment of 4×8×8 latents; `memory` has 8


def memory(**fields: Any) -> dict:
    """Overrides of the memory's fields."""
    return dict(model=dict(memory=fields))


def another(kind: str, **fields: Any) -> dict:
    """Another memory, with the same patches."""
    return memory(kind=kind, patch=(2, 4, 4), depth=1, heads=2, **fields)


def gradient(depth: int) -> dict:
    """Overrides that let a gradient pass so many updates of the memory."""
    return dict(training=dict(stages={"0": dict(bptt_depth=depth)}))


def get_config(argument: str = "full") -> ConfigDict:
    if argument not in ("full", "smoke"):
        raise InputError(f"argument {argument!r} is unknown: use full or smoke")
    config = ConfigDict()
    config.base = recall_tiny.get_config("memorypack")
    # Memory forms late and at once; the share of returns among the trained segments decides when.
    config.base.data.return_focus = 0.9
    config.base.training.stages[0].update(steps=STEPS, curriculum=[(STEPS * n // 16, 2 + n) for n in range(5)])
    config.base.training.stages[0]["optimizer"].update(warmup_steps=STEPS // 20)
    config.base.training.update(
        validate_every=STEPS, sample_every=0, checkpoint_every=STEPS // 4, log_every=STEPS // 10
    )
    r2 = dict(
        data=dict(world=dict(scene="R2", prompt_bytes=24)),
        model=dict(encoders=dict(prompt_bytes=24)),
        training=dict(segments=7, stages={"0": dict(curriculum=[(STEPS * n // 16, 3 + n) for n in range(5)])}),
    )
    tokens, depth = "tokens of memory", "updates of ψ that a gradient passes"
    config.arms = [
        dict(name="memory", x={tokens: 8, depth: 5}),
        dict(name="none", overrides=dict(model=dict(memory=None)), panel="*"),
        dict(name="squeeze_b", overrides=memory(squeeze="B"), panel="squeeze"),
        dict(name="squeeze_c", overrides=memory(squeeze="C"), panel="squeeze"),
        dict(name="gate", overrides=memory(gate="scalar"), panel="squeeze"),
        dict(name="no_residual", overrides=memory(residual=False), panel="squeeze"),
        dict(name="zero_start", overrides=memory(initial="zero"), panel="start"),
        dict(name="start_without_text", overrides=memory(initial="image"), panel="start"),
        *(dict(name=f"bptt_{n}", overrides=gradient(n), panel="gradient", x={depth: n}) for n in (0, 1, 4)),
        *(
            dict(name=f"tokens_{n}", overrides=memory(patch=patch), panel="tokens", x={tokens: n})
            for n, patch in TOKENS.items()
        ),
        dict(name="mean_pool", overrides=another("mean_pool"), panel="kinds"),
        dict(name="first_segment", overrides=another("first_segment"), panel="kinds"),
        dict(name="retrieval", overrides=another("retrieval", segments=BANK), panel="kinds"),
        dict(name="long_window", overrides=another("long_window", segments=BANK), panel="kinds"),
        dict(
            name="none_anchored", overrides=dict(model=dict(memory=None), data=dict(world=dict(anchor=True))), panel="*"
        ),
        dict(name="r2", overrides=r2, panel="r2"),
        dict(name="r2_none", overrides={**r2, "model": {**r2["model"], "memory": None}}, panel="r2"),
    ]
    config.reference = "memory"
    config.seeds = [0, 1, 2]
    config.recall = [
        dict(gaps=GAPS),
        dict(name="memory_reset", gaps=(2, 4, 8), arms=["memory"], control=dict(kind="memory_reset"), expects="chance"),
        dict(name="zero_start", gaps=(2, 4, 8), arms=["memory"], control=dict(kind="zero_start")),
        dict(name="anchor", gaps=(2, 4, 8), arms=["none_anchored"], control=dict(kind="anchor"), expects="succeeds"),
        dict(
            name="shuffled_prompts",
            gaps=(2, 4, 8),
            arms=["r2"],
            control=dict(kind="shuffled_prompts"),
            world=dict(scene="R2", prompt_bytes=24),
        ),
    ]
    config.memory_claim = dict(memory="memory", none="none", slots="r2")
    if argument == "smoke":
        shrink(config.base)
        config.arms = config.arms[:2]
        config.seeds = [0, 1]
        config.recall = [dict(gaps=(0, 2), clips_per_gap=2)]
        config.memory_claim.slots = ""
        config.timing_pairs = 6
    return config
