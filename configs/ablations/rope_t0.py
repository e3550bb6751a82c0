"""RecallWorld at tier T0: FramePack-F1's positions, the same for every segment, against the paper's RoPE Consistency.

    python -m mpjax ablate --config=configs/ablations/rope_t0.py --run=runs/ablation_rope_t0

Both layouts learn D1 from the same batches under teacher forcing, and are rolled out for a minute.
Arguments: `full` (default) and `smoke` (two arms of a few updates, for tests).
"""

from ml_collections import ConfigDict

from configs import drift_tiny
from configs.ablations import shrink
from mpjax.errors import InputError

STEPS = 1500


def get_config(argument: str = "full") -> ConfigDict:
    if argument not in ("full", "smoke"):
        raise InputError(f"argument {argument!r} is unknown: use full or smoke")
    smoke = argument == "smoke"
    config = ConfigDict()
    config.base = drift_tiny.get_config("base")
    config.base.training.stages[0].update(steps=STEPS)
    config.base.training.stages[0]["optimizer"].update(warmup_steps=STEPS // 20)
    config.base.training.update(validate_every=STEPS, checkpoint_every=STEPS // 2, log_every=STEPS // 10)
    config.arms = [
        dict(name=layout, overrides=dict(model=dict(framepack=dict(rope_layout=layout))))
        for layout in ("framepack_f1", "global")
    ]
    config.reference = "framepack_f1"
    config.seeds = [0, 1, 2, 3, 4]
    config.drift = [dict(segments=60, clips=128)]
    if smoke:
        shrink(config.base)
        config.seeds = [0]
        config.drift = [dict(segments=4, clips=2)]
        config.timing_pairs = 6
    return config
