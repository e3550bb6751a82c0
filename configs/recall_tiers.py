"""RecallWorld R1 beyond tier T0 (`configs/recall_tiny.py`): larger frames and networks, for one accelerator.

    python -m mpjax train --config=configs/recall_tiers.py:t1 --run=runs/recall_t1
    python -m mpjax recall --weights=runs/recall_t1 --gaps=0,1,2,4,8,16,32,56

| tier | frame | segment | a minute | parameters | for |
|---|---|---|---|---|---|
| T0 | 8 × 8 | 4 frames at 4 a second | 60 segments | 0.4 M | a CPU core, minutes |
| T1 | 32 × 32 | 8 frames at 8 a second | 60 segments | 9 M | one GPU, minutes |
| T2 | 64 × 64 | 36 frames at 24 a second | 40 segments | 86 M | one GPU or TPU, an hour |

Arguments: `t1` (default), `t2`, `smoke` (T1 with a small network and a few updates, for tests).
"""

from ml_collections import ConfigDict

from configs import recall_tiny
from mpjax.errors import InputError


def get_config(argument: str = "t1") -> ConfigDict:
    if argument not in ("t1", "t2", "smoke"):
        raise InputError(f"argument {argument!r} is unknown: use t1, t2 or smoke")
    config = recall_tiny.get_config("smoke" if argument == "smoke" else "memorypack")
    large = argument == "t2"
    frames, reach = (36, (1, 2, 16)) if large else (8, (1, 2, 8))
    config.data.world.update(
        frame_size=64 if large else 32,
        patch=16 if large else 8,
        colours=8,
        segment_frames=frames,
        fps=24 if large else 8,
        reach=reach,
    )
    config.model.framepack.update(segment_frames=frames, history_frames=reach)
    # A token covers half a sprite each way, and Memorize joins the four of a sprite.
    config.model.update(patch=8 if large else 4, rope_theta=10.0)
    config.model.memory.update(patch=(4, 16, 16) if large else (2, 8, 8))
    config.training.update(segments=10, batch_size=4 if large else 16)
    if argument == "smoke":
        config.training.update(segments=6, batch_size=1)
        return config
    if large:
        config.model.update(heads=8, head_dim=64, dual_blocks=3, single_blocks=9, remat="full")
    else:
        config.model.update(heads=4, head_dim=48, dual_blocks=2, single_blocks=6)
    config.model.update(
        rope_axes=(16, 24, 24) if large else (16, 16, 16), text_width=128, pooled_width=128, image_width=128
    )
    config.model.memory.update(heads=config.model.heads)
    config.model.encoders.update(width=128)
    steps = 20_000
    stage = config.training.stages[0]
    stage.update(steps=steps, curriculum=[(steps * n // 16, 2 + n) for n in range(9)])
    stage["optimizer"].update(learning_rate=2e-4 if large else 5e-4, warmup_steps=steps // 20)
    config.training.update(log_every=100, validate_every=1000, sample_every=5000, checkpoint_every=1000)
    return config
