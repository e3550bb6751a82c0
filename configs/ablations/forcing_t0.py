"""RecallWorld D1 at tier T0: which forcing slows the decay of a minute, and at what cost?

    python -m mpjax ablate --config=configs/ablations/forcing_t0.py:anchored --run=runs/ablation_forcing_anchored

One base a seed is trained by teacher forcing; every arm then goes on from it with the same number of updates on the
same batches, chains of four segments after two given ones, and differs in forcing alone. `echo` and `teacher_repeat`
see each batch twice in a row.

Arguments, joined by commas:

- a world: `aligned` (default; every segment repeats the frames of the one before), `unaligned` (segments of three
  frames, which never line up), `anchored` (unaligned, and the reference frame shows the toy) or `futures`
  (unaligned, and balls turn, so that the past allows several futures);
- a set of arms: `main` (default, five seeds), `rest` (all others, three seeds) or `students` (Student Forcing, with the
  curves of claim (b3), five seeds). They may share one --run: what they have in common is trained once;
- `memory`: every network has SemanticPack;
- `smoke`: three arms of a few updates, for tests.
"""

from ml_collections import ConfigDict

from configs import drift_tiny, recall_tiny
from configs.ablations import shrink
from mpjax.errors import InputError

STEPS = 1500
SECONDS, FPS, CLIPS = 60, 4, 64
UNALIGNED = dict(segment_frames=3)
WORLDS = dict(
    aligned={}, unaligned=UNALIGNED, anchored=dict(UNALIGNED, anchor=True), futures=dict(UNALIGNED, turn=0.05)
)
# A base that is far from trained loses the toy within seconds, whatever follows: error then stands still for the rest
# of the minute. These keep it for most of a minute; motion that never repeats is learned more slowly.
BASE_STEPS = dict(aligned=4000, unaligned=10000, anchored=4000, futures=10000)
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


def echo(name: str, **fields) -> dict:
    """An arm of Echo, which sees each batch twice."""
    return arm(name, "echo", dict(kind="echo", **fields), repeat=2)


TEACHER = arm("teacher", "*", dict(kind="teacher"))
DIRECT = arm("direct", "direct", direct(), curve=True)
SETS = dict(
    main=[
        TEACHER,
        DIRECT,
        arm("residual", "residual", residual()),
        echo("echo"),
    ],
    rest=[
        TEACHER,
        arm("teacher_repeat", "history", dict(kind="teacher"), repeat=2),
        arm("direct_head", "direct", direct(), trainable="output_head"),
        arm("direct_low_noise", "direct", direct(estimate=dict(kind="low_noise"))),
        arm("direct_separate", "direct", direct(estimate=dict(kind="separate", time=dict(name="logit_normal")))),
        arm("direct_2_steps", "direct", direct(steps=2)),
        arm("direct_mixed", "direct", direct(clean_mix=0.5)),
        arm("residual_1", "residual", residual(scale=1.0)),
        arm("residual_input_only", "residual", residual(in_history=False)),
        arm("residual_history_only", "residual", residual(in_input=False)),
        echo("echo_1", scale=1.0),
        echo("echo_input_only", in_history=False),
        echo("echo_history_only", in_input=False),
        arm("echo_head", "echo", dict(kind="echo"), repeat=2, trainable="output_head"),
        arm("history_noise", "history", dict(kind="history_noise")),
        arm("helios", "history", dict(kind="helios")),
        arm("error_recycling", "history", dict(kind="error_recycling")),
        arm("resampling", "history", dict(kind="resampling")),
    ],
    students=[
        TEACHER,
        DIRECT,
        *(arm(f"student_{n}", "student", dict(kind="student", steps=n), curve=True) for n in STUDENTS),
    ],
)
SEEDS = dict(main=5, rest=3, students=5)


def _one_of(words: set[str], choices: dict, default: str) -> str:
    """The word that is among the choices."""
    found = sorted(words & set(choices))
    if len(found) > 1:
        raise InputError(f"arguments {' and '.join(found)} exclude each other: use one of them")
    return found[0] if found else default


def get_config(argument: str = "aligned") -> ConfigDict:
    words = set(argument.split(","))
    if unknown := words - {*WORLDS, *SETS, "memory", "smoke"}:
        known = ", ".join([*WORLDS, *SETS, "memory"])
        raise InputError(f"argument {', '.join(sorted(unknown))!r} is unknown: use {known} or smoke, joined by commas")
    world, chosen, smoke = _one_of(words, WORLDS, "aligned"), _one_of(words, SETS, "main"), "smoke" in words
    config = ConfigDict()
    config.base = drift_tiny.get_config("teacher")
    if "memory" in words:
        config.base.model.memory = recall_tiny.get_config("memorypack").model.memory
    config.base.data.world.update(WORLDS[world])
    frames = config.base.data.world.get("segment_frames", 4)
    config.base.model.framepack.update(segment_frames=frames)
    config.base.training.stages[0].update(steps=STEPS)
    config.base.training.stages[0]["optimizer"].update(warmup_steps=STEPS // 20)
    config.base.training.update(
        validate_every=STEPS, checkpoint_every=STEPS // 4, keep_checkpoints=4, log_every=STEPS // 10
    )
    if smoke:
        shrink(config.base)
    steps = 4 if smoke else BASE_STEPS[world]
    first = dict(
        steps=steps, optimizer=dict(learning_rate=2e-3, warmup_steps=steps // 20), curriculum=[(0, 4)], given=1
    )
    base = dict(name="base", overrides=dict(training=dict(segments=4, stages={"0": first})), panel="base")
    config.arms = [base, *(SETS[chosen][:2] if smoke else SETS[chosen])]
    config.reference = "teacher"
    config.seeds = [0] if smoke else list(range(SEEDS[chosen]))
    config.drift = [dict(segments=4, clips=2) if smoke else dict(segments=SECONDS * FPS // frames, clips=CLIPS)]
    if chosen != "rest":
        config.forcing_claim = dict(literal="direct")
    if smoke:
        config.budget, config.timing_pairs = "wall_clock", 6
    elif chosen == "main":
        config.forcing_claim.recipe = "echo"
    elif chosen == "students":
        config.forcing_claim.students = [(f"student_{n}", n) for n in STUDENTS]
    return config
