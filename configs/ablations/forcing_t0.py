"""RecallWorld D1 at tier T0: which forcing slows the decay of a minute, and at what cost?

    python -m mpjax ablate --config=configs/ablations/forcing_t0.py --run=runs/ablation_forcing_t0

One base a seed is trained by teacher forcing; every arm then goes on from it with the same number of updates on the
same batches, chains of four segments after two given ones, and differs in forcing alone. `echo` and `teacher_repeat`
see each batch twice in a row.

Arguments, joined by commas: a world, `aligned` (default; every segment repeats the frames of the one before),
`unaligned` (segments of three frames, which never line up) or `futures` (balls that turn, so that the past allows
several futures); `smoke` (three arms of a few updates, for tests).
"""

from ml_collections import ConfigDict

from configs import drift_tiny
from configs.ablations import shrink
from mpjax.errors import InputError

BASE_STEPS, STEPS = 1500, 1000
SECONDS, FPS = 60, 4
WORLDS = ("aligned", "unaligned", "futures")
STUDENTS = (2, 5, 10)


def arm(name: str, panel: str, forcing: dict, curve: bool = False, **stage) -> dict:
    """An arm that goes on from the base of its seed; `stage` has other fields of its stage."""
    overrides = dict(training=dict(stages={"0": dict(forcing=forcing, **stage)}))
    return dict(name=name, init="base", overrides=overrides, panel=panel, curve=curve)


def direct(**fields) -> dict:
    """Direct Forcing."""
    return dict(kind="direct", **fields)


def residual(**fields) -> dict:
    """Residual forcing."""
    return dict(kind="residual", **fields)


ARMS = [
    arm("teacher", "*", dict(kind="teacher")),
    arm("direct", "direct", direct(), curve=True),
    arm("direct_head", "direct", direct(), trainable="output_head"),
    arm("direct_low_noise", "direct", direct(estimate=dict(kind="low_noise"))),
    arm("direct_separate", "direct", direct(estimate=dict(kind="separate", time=dict(name="logit_normal")))),
    arm("direct_mixed", "direct", direct(clean_mix=0.5)),
    arm("residual", "residual", residual()),
    arm("residual_1", "residual", residual(scale=1.0)),
    arm("residual_input_only", "residual", residual(in_history=False)),
    arm("residual_history_only", "residual", residual(in_input=False)),
    arm("echo", "residual", dict(kind="echo"), repeat=2),
    arm("teacher_repeat", "history", dict(kind="teacher"), repeat=2),
    arm("history_noise", "history", dict(kind="history_noise")),
    arm("helios", "history", dict(kind="helios")),
    arm("error_recycling", "history", dict(kind="error_recycling")),
    arm("resampling", "history", dict(kind="resampling")),
    *(arm(f"student_{n}", "student", dict(kind="student", steps=n), curve=True) for n in STUDENTS),
]


def get_config(argument: str = "aligned") -> ConfigDict:
    words = argument.split(",")
    world, smoke = next((word for word in words if word in WORLDS), "aligned"), "smoke" in words
    if set(words) - {*WORLDS, "smoke"} or len(set(words) & set(WORLDS)) > 1:
        raise InputError(f"argument {argument!r} is unknown: use {', '.join(WORLDS)} or smoke, joined by commas")
    config = ConfigDict()
    config.base = drift_tiny.get_config("teacher")
    frames = 3 if world == "unaligned" else 4
    config.base.data.world.update(segment_frames=frames)
    if world == "futures":
        config.base.data.world.update(turn=0.1)
    config.base.model.framepack.update(segment_frames=frames)
    config.base.training.stages[0].update(steps=STEPS)
    config.base.training.stages[0]["optimizer"].update(warmup_steps=STEPS // 20)
    config.base.training.update(
        validate_every=STEPS, checkpoint_every=STEPS // 4, keep_checkpoints=4, log_every=STEPS // 10
    )
    if smoke:
        shrink(config.base)
    steps, optimizer = BASE_STEPS, dict(learning_rate=2e-3, warmup_steps=BASE_STEPS // 20)
    if smoke:
        steps, optimizer = 4, dict(learning_rate=2e-3, warmup_steps=0)
    first = dict(steps=steps, optimizer=optimizer, curriculum=[(0, 4)], given=1)
    base = dict(name="base", overrides=dict(training=dict(segments=4, stages={"0": first})), panel="base")
    config.arms = [base, *(ARMS[:2] if smoke else ARMS)]
    config.reference = "teacher"
    config.seeds = [0] if smoke else [0, 1, 2, 3, 4]
    config.drift = [dict(segments=4, clips=2) if smoke else dict(segments=SECONDS * FPS // frames, clips=64)]
    config.forcing_claim = dict(literal="direct")
    if smoke:
        config.budget, config.timing_pairs = "wall_clock", 6
    else:
        config.forcing_claim.update(recipe="residual", students=[(f"student_{n}", n) for n in STUDENTS])
    return config
