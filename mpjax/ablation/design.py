"""An ablation: one base experiment, arms that change fields of it, seeds, and what is measured.

A config file gives it as it gives an experiment: `get_config()` returns a ConfigDict with the fields of `Ablation`.
"""

import dataclasses
from typing import Any

from mpjax import config
from mpjax.errors import InputError
from mpjax.evaluation.controls import Anchor, MemoryReset, NoControl, ShuffledPrompts, WithinReach, ZeroStart

BUDGETS = ("updates", "wall_clock")
EXPECTATIONS = ("", "chance", "succeeds")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm.

    Attributes:
        name: of its folder and its row.
        overrides: nested fields of the experiment; an entry of a list by its number, `{"stages": {"0": {…}}}`. A group
            of another `kind` replaces the whole group.
        init: arm from whose weights of the same seed it starts.
        panel: arms of one panel share a figure, together with the reference and the arms of panel "*".
        x: the arm's places on curves, for instance {"tokens of memory": 8}.
        curve: also measure drift at every kept checkpoint.
    """

    name: str
    overrides: dict = dataclasses.field(default_factory=dict)
    init: str = ""
    panel: str = ""
    x: dict = dataclasses.field(default_factory=dict)
    curve: bool = False

    def __post_init__(self):
        if not self.name or set(self.name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"):
            raise InputError(f"name is {self.name!r}: use letters, digits, _ and -")
        if not all(isinstance(place, (int, float)) for place in self.x.values()):
            raise InputError(f"x is {self.x}: give a number for each curve, for example {{'tokens of memory': 8}}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallEvaluation:
    """Recall by gap (`evaluation.recall`).

    Attributes:
        name: of its rows.
        gaps, clips_per_gap: as for `evaluate_recall`.
        seed: first of the clips; training seed n is evaluated on clips of seed + n, so that seeds are independent.
        world: fields of the world that differ from the arm's.
        arms: the arms evaluated; none: all.
        control: what is changed to see whether the known effect follows (`evaluation.controls`).
        expects: "chance" or "succeeds": a control, and where its recall beyond reach must be.
    """

    name: str = "recall"
    gaps: tuple[int, ...]
    clips_per_gap: int = 256
    seed: int = 100
    world: dict = dataclasses.field(default_factory=dict)
    arms: tuple[str, ...] = ()
    control: NoControl | WithinReach | Anchor | ZeroStart | ShuffledPrompts | MemoryReset = NoControl()
    expects: str = ""

    def __post_init__(self):
        if not self.gaps or min(self.gaps) < 0 or self.clips_per_gap < 1:
            raise InputError("gaps must be a list of numbers from 0 on and clips_per_gap at least 1")
        if self.expects not in EXPECTATIONS:
            raise InputError(f"expects is {self.expects!r}: it must be chance, succeeds or empty")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftEvaluation:
    """Drift of a long rollout (`evaluation.drift`).

    Attributes:
        name: of its rows.
        segments, given, clips: as for `evaluate_drift`.
        seed, world, arms: as for `RecallEvaluation`.
    """

    name: str = "drift"
    segments: int
    given: int = 2
    clips: int = 64
    seed: int = 100
    world: dict = dataclasses.field(default_factory=dict)
    arms: tuple[str, ...] = ()

    def __post_init__(self):
        if min(self.segments, self.given, self.clips) < 1:
            raise InputError("segments, given and clips must be at least 1")


Evaluation = RecallEvaluation | DriftEvaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryClaim:
    """Arms of claim (a): with memory, without, and trained on R2 (`evaluation.claims`)."""

    memory: str
    none: str
    slots: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForcingClaim:
    """Arms of claims (b): the paper's Direct Forcing, the recommended recipe, and Student Forcing by its steps."""

    literal: str
    recipe: str = ""
    students: tuple[tuple[str, int], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablation:
    """A whole ablation.

    Attributes:
        base: fields of the experiment that every arm starts from.
        arms: what differs.
        reference: arm that step times and ratios relate to.
        seeds: of training; every arm is run with each.
        recall, drift: what is measured.
        budget: "updates" gives every arm the same number of them; "wall_clock" scales the stages of an arm by the
            inverse of its step-time ratio to the reference. Arms that others start from keep their updates.
        timing_pairs: pairs of steps that measure the ratio; 0 measures none.
        memory_claim, forcing_claim: which arms the claims are about.
    """

    base: dict
    arms: tuple[Arm, ...]
    reference: str
    seeds: tuple[int, ...]
    recall: tuple[RecallEvaluation, ...] = ()
    drift: tuple[DriftEvaluation, ...] = ()
    budget: str = "updates"
    timing_pairs: int = 20
    memory_claim: MemoryClaim | None = None
    forcing_claim: ForcingClaim | None = None

    def __post_init__(self):
        if self.budget not in BUDGETS:
            raise InputError(f"budget is {self.budget!r}: it must be one of {', '.join(BUDGETS)}")
        if self.timing_pairs and self.timing_pairs < 6:
            raise InputError(
                f"timing_pairs is {self.timing_pairs}: an interval of a median needs 6, and 0 measures none"
            )
        if self.budget == "wall_clock" and not self.timing_pairs:
            raise InputError("budget is 'wall_clock', which needs step times: set timing_pairs to 6 or more")
        names = [arm.name for arm in self.arms]
        _check_unique("arms", names)
        _check_unique("seeds", [str(seed) for seed in self.seeds])
        _check_unique("recall and drift", [evaluation.name for evaluation in self.every_evaluation])
        mentioned = {"reference": [self.reference]}
        for arm in self.arms:
            mentioned[f"arm {arm.name}: init"] = [arm.init] if arm.init else []
        for evaluation in self.every_evaluation:
            mentioned[f"evaluation {evaluation.name}: arms"] = list(evaluation.arms)
        if (claim := self.memory_claim) is not None:
            mentioned["memory_claim"] = [name for name in (claim.memory, claim.none, claim.slots) if name]
        if (forcing := self.forcing_claim) is not None:
            students = [name for name, _ in forcing.students]
            mentioned["forcing_claim"] = [name for name in (forcing.literal, forcing.recipe, *students) if name]
        for place, used in mentioned.items():
            for name in used:
                if name not in names:
                    raise InputError(f"{place} names arm {name!r}: it must be one of {', '.join(names)}")
        for arm in self.arms:
            if arm.init and self.arm(arm.init).init:
                raise InputError(f"arm {arm.name} starts from {arm.init}, which starts from another: use one level")
        self._check_claims()

    def _check_claims(self) -> None:
        """What the claims will read must be measured; to find out after the last cell would be late."""
        needed: list[tuple[str, Evaluation, list[str]]] = []
        if (memory := self.memory_claim) is not None:
            if self.main_recall is None:
                raise InputError("memory_claim needs a recall evaluation without control: add one to recall")
            needed.append(("memory_claim", self.main_recall, [memory.memory, memory.none]))
        if (forcing := self.forcing_claim) is not None:
            students = [name for name, _ in forcing.students]
            compared = [self.reference, forcing.literal, *students, *([forcing.recipe] if forcing.recipe else [])]
            needed += [("forcing_claim", drift, compared) for drift in self.drift]
            for name in [forcing.literal, *students] if students else []:
                if not self.arm(name).curve:
                    raise InputError(f"forcing_claim.students needs the curve of arm {name}: set its curve to True")
        for claim, evaluation, names in needed:
            for name in names:
                if not self.measures(evaluation, self.arm(name)):
                    raise InputError(f"{claim} needs evaluation {evaluation.name} of arm {name}: add it to its arms")

    @property
    def main_recall(self) -> RecallEvaluation | None:
        """The recall evaluation that the memory claim is about: the first one without control."""
        plain = (recall for recall in self.recall if recall.control == NoControl() and not recall.expects)
        return next(plain, None)

    @property
    def every_evaluation(self) -> tuple[Evaluation, ...]:
        """Recall, then drift."""
        return (*self.recall, *self.drift)

    def arm(self, name: str) -> Arm:
        """The arm of a name."""
        return next(arm for arm in self.arms if arm.name == name)

    def is_base(self, arm: Arm) -> bool:
        """Whether others start from it."""
        return any(other.init == arm.name for other in self.arms)

    @staticmethod
    def measures(evaluation: Evaluation, arm: Arm) -> bool:
        """Whether an arm is measured by an evaluation."""
        return not evaluation.arms or arm.name in evaluation.arms


def load(path: str, overrides: list[str]) -> Ablation:
    """Reads `FILE.py[:ARGUMENT]` with `--config.field=value` overrides, as `experiment.load` does.

    Raises:
        InputError: naming the file or field, and the remedy.
    """
    return config.build(Ablation, config.load(path, overrides))


def merged(fields: Any, overrides: Any) -> Any:
    """Fields of an experiment (`config.to_dict`) with nested overrides.

    Raises:
        InputError: an entry of a list that is not there.
    """
    if not isinstance(overrides, dict):
        return overrides
    if isinstance(fields, list):
        result = list(fields)
        for key, value in overrides.items():
            if not str(key).isdecimal() or int(key) >= len(result):
                raise InputError(f"{key!r} is no entry of a list of {len(result)}: use 0 to {len(result) - 1}")
            result[int(key)] = merged(result[int(key)], value)
        return result
    if not isinstance(fields, dict) or overrides.get("kind", fields.get("kind")) != fields.get("kind"):
        return overrides
    return {**fields, **{key: merged(fields.get(key), value) for key, value in overrides.items()}}


def _check_unique(place: str, names: list[str]) -> None:
    if not names and place in ("arms", "seeds"):
        raise InputError(f"{place} is empty: give at least one")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{place} has {name!r} twice: give each another name")
