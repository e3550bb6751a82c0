"""RecallWorld D1 at tier T0: does Direct Forcing slow the decay of a long rollout? No long-term memory, all parameters.

    python -m mpjax train --config=configs/drift_tiny.py:base --run=runs/drift_base
    python -m mpjax train --config=configs/drift_tiny.py:teacher --run=runs/drift_teacher --init=runs/drift_base
    python -m mpjax train --config=configs/drift_tiny.py:direct --run=runs/drift_direct --init=runs/drift_base

Both fine-tunings see the same batches, chain four segments after two given ones, and differ in forcing alone.
`smoke` is a base of a few updates, for tests.
"""

from ml_collections import ConfigDict

from configs import recall_tiny
from mpjax.errors import InputError


def get_config(argument: str = "base") -> ConfigDict:
    if argument not in ("base", "teacher", "direct", "smoke"):
        raise InputError(f"argument {argument!r} is unknown: use base, teacher, direct or smoke")
    config = recall_tiny.get_config("framepack")
    config.data = dict(kind="recallworld", world=dict(scene="D1"))
    base = argument in ("base", "smoke")
    steps = {"base": 900, "smoke": 20}.get(argument, 450)
    config.training = dict(
        stages=[
            dict(
                steps=steps,
                forcing=dict(kind="teacher" if base else argument),
                optimizer=dict(
                    learning_rate=2e-3 if base else 1e-3, warmup_steps=steps // 20, decay="cosine", final_fraction=0.02
                ),
                curriculum=[(0, 4 if base else 6)],
                given=1 if base else 2,
            )
        ],
        segments=4 if base else 6,
        batch_size=16,
        ema_decay=0.995,
        log_every=max(steps // 40, 1),
        validate_every=steps // 4,
        checkpoint_every=steps // 4,
    )
    return config
