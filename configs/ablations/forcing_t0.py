"""RecallWorld D1 at tier T0: which forcing slows the decay of a minute, and at what cost?

    python -m mpjax ablate --config=configs/ablations/forcing_t0.py --run=runs/ablation_forcing_t0

One base a seed is trained by teacher forcing; every arm then goes on from it with the same number of updates on the same
batches, chains of four segments after two given ones, and differs in forcing alone.

Arguments, joined by commas: a world, `aligned` (default; every segment repeats the frames of the one before),
`unaligned` (segments of three frames, which never line up) or `futures` (balls that turn, so that the past allows several
futures); `smoke` (three arms of a few updates, for tests).
"""

from ml_collections import ConfigDict

from configs import drift_tiny
from configs.ablations import shrink
from mpjax.errors import InputError

BASE_STEPS, STEPS = 1500, 1200
SECONDS, FPS = 60, 4
WORLDS = ("aligned", "unaligned", "futures")


def get_config(argument: str = "aligned") -> ConfigDict:
    words = argument.split(",")
    world, smoke = next((word for word in words if word in WORLDS), "aligned"), "smoke" in words
    if set(words) - {*WORLDS, "smoke"} or len(set(words) & set(WORLDS)) > 1:
        raise InputError(f"argument {argument!r} is unknown: use {', '.join(WORLDS)} or smoke, joined by commas")
    config = ConfigDict()
    config.base = base = drift_tiny.get_config("teacher")
    frames = 3 if world == "unaligned" else 4
    base.data.world.update(segment_frames=frames)
    base.model.framepack.update(segment_frames=frames)
    if world == "futures":
        base.data.world.update(turn=0.1)
    base.training.stages[0].update(steps=STEPS)
    base.training.stages[0].optimizer.update(warmup_steps=STEPS // 20)
    base.training.update(validate_every=STEPS, checkpoint_every=STEPS // 4, log_every=STEPS // 10, keep_checkpoints=4)
    teacher = dict(
        steps=BASE_STEPS,
        curriculum=[(0, 4)],
        given=1,
        optimizer=dict(learning_rate=2e-3, warmup_steps=BASE_STEPS // 20),
    )

    def arm(name: str, panel: str, curve: bool = False, repeat: int = 1, **forcing) -> dict:
        stage = dict(forcing=forcing, repeat=repeat)
        overrides = dict(training=dict(stages={"0": stage}))
        return dict(name=name, init="base", overrides=overrides, panel=panel, curve=curve)

    config.arms = [
        dict(name="base", overrides=dict(training=dict(segments=4, stages={"0": teacher})), panel="base"),
        arm("teacher", "*", kind="teacher"),
        arm("direct", "direct", curve=True, kind="direct"),
        arm("residual", "residual", kind="residual"),
        arm("history_noise", "corrupted", kind="history_noise"),
        arm("helios", "corrupted", kind="helios"),
        arm("direct_low_noise", "direct", kind="direct", estimate=dict(kind="low_noise")),
        arm("direct_mixed", "direct", kind="direct", clean_mix=0.5),
        arm("direct_separate", "direct", kind="direct", estimate=dict(kind="separate", time=dict(name="logit_normal"))),
        arm("residual_1", "residual", kind="residual", scale=1.0),
        arm("residual_input_only", "residual", kind="residual", in_history=False),
        arm("residual_history_only", "residual", kind="residual", in_input=False),
        arm("echo", "residual", repeat=2, kind="echo"),
        *(arm(f"student_{n}", "student", curve=True, kind="student", steps=n) for n in (2, 5, 10)),
        arm("resampling", "corrupted", kind="resampling"),
        arm("error_recycling", "corrupted", kind="error_recycling"),
    ]
    config.reference = "teacher"
    config.seeds = [0, 1, 2, 3, 4]
    config.drift = [dict(segments=SECONDS * FPS // frames, clips=64)]
    students = [(f"student_{n}", n) for n in (2, 5, 10)]
    config.forcing_claim = dict(literal="direct", recipe="residual", students=students)
    if smoke:
        shrink(base)
        small = dict(steps=4, curriculum=[(0, 4)], given=1)
        config.arms = [
            dict(name="base", overrides=dict(training=dict(segments=4, stages={"0": small}))),
            *config.arms[1:3],
        ]
        config.seeds = [0]
        config.drift = [dict(segments=4, clips=2)]
        config.forcing_claim = dict(literal="direct")
        config.timing_pairs = 6
        config.budget = "wall_clock"
    return config
