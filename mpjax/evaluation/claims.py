"""What RecallWorld was built to decide, as tests whose thresholds were fixed before any run.

Every test reads cells, `{arm: {seed: cell}}`, where a cell holds

    recall: {evaluation: what `recall_metrics.recall_report` returns}
    drift: {evaluation: what `drift_metrics.drift_report` returns, with `motion`}
    drift_curve: {evaluation: [{update, slope}, …]}, from checkpoints on the way, where they were kept
    held_out_loss: teacher-forced loss on held-out batches

Seeds are paired: all arms of one seed saw the same batches and are evaluated on the same clips. Differences have
Student's t interval over seeds, ratios that of their log (`statistics`). A claim for all gaps is confirmed if it holds
at each one at 95 % (an intersection of tests needs no correction), and refuted by one of them after Bonferroni's.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mpjax.evaluation.statistics import (
    bonferroni_confidence,
    paired_ratio_interval,
    seed_interval,
    wilson_interval,
)
from mpjax.evaluation.verdict import CONFIRMED, REFUTED, UNDECIDED, Claim, Part, at_least, at_most, required, within

Cells = Mapping[str, Mapping[int, dict]]

MEMORY = "Memory brings back what the window has lost: recall with memory exceeds that without by at least .5."
RECALL_GAIN = 0.5
RECALL_SEEDS, CLIPS_PER_GAP = 3, 256
FARTHEST = 8  # windows
INSIDE_DIFFERENCE = 0.05
SLOTS_RECALL = 0.5  # what a memory without order can reach with two toys
SUCCESS = 0.5

DRIFT = "Over a minute on its own frames, the error grows more slowly than under teacher forcing, and no price is paid."
SLOPE_RATIO, RECIPE_SLOPE_RATIO = 0.8, 0.6
DRIFT_SEEDS, DRIFT_SECONDS = 5, 60.0
DRIFT_CLIPS = 256  # all seeds together, since each is evaluated on clips of its own
EARLY_RATIO = 1.05
HELD_OUT_RATIO = 1.05
DEAD_MOTION_MARGIN = 0.01  # "not higher" needs a margin: one segment in a hundred
# For the recipe alone, and set after the first world was seen: where teacher forcing itself freezes in some seeds, a
# difference from it says little.
RECIPE_DEAD_MOTION = 0.02

RECIPE = (
    "The recipe brings the slope of the error down to .6 of teacher forcing's with no loss at the start, motion alive, "
    "at hardly a higher price."
)

COST = "A forcing that adds no forward pass costs what teacher forcing costs."
LITERAL_COST, TUNED_COST, OTHER_COST = 1.05, 1.02, 1.10

STUDENT = (
    "Student Forcing of N steps takes at least N / 2 times as long as Direct Forcing to come down to a slope of "
    "0.8 times teacher forcing's."
)


def memory_claim(
    cells: Cells,
    *,
    memory: str,
    none: str,
    evaluation: str = "recall",
    slots: str = "",
    controls: Sequence[tuple[str, str, str]] = (),
) -> Claim:
    """Claim (a).

    Args:
        cells: see above.
        memory, none: arms with and without long-term memory.
        evaluation: name of the recall evaluation.
        slots: arm trained on R2; empty leaves the part undecided.
        controls: (arm, evaluation, "chance" or "succeeds"): where recall beyond reach must be.
    """
    seeds = _shared(cells, memory, none)
    with_memory, without = ([cells[arm][seed]["recall"][evaluation] for seed in seeds] for arm in (memory, none))
    gaps = [row["gap"] for row in without[0]["gaps"]] if seeds else []
    beyond = [row["gap"] for row in without[0]["gaps"] if row["beyond_reach"]] if seeds else []
    inside = [gap for gap in gaps if gap not in beyond]
    near = [gap for gap in beyond if gap <= FARTHEST * beyond[0]]
    lack = _lack(with_memory) or _lack(without)
    parts = [
        required(f"{RECALL_SEEDS} seeds or more, {CLIPS_PER_GAP} clips a gap or more", not lack, lack, gate=True),
        required(
            f"gaps from the window to {FARTHEST} windows",
            bool(beyond) and beyond[-1] >= FARTHEST * beyond[0],
            f"gaps beyond reach: {beyond}",
        ),
    ]
    if not beyond:
        return Claim(key="a memory", text=MEMORY, parts=tuple(parts))
    confidence = bonferroni_confidence(0.95, len(near))
    for gap in near:
        difference = _at(with_memory, [gap]) - _at(without, [gap])
        text = f"recall of {memory} − {none} ≥ {RECALL_GAIN} at gap {gap}"
        parts.append(at_least(text, seed_interval(difference), RECALL_GAIN, seed_interval(difference, confidence)))
    parts += _chance(without, beyond, none)
    if inside:
        difference = _at(with_memory, inside) - _at(without, inside)
        text = f"|{memory} − {none}| < {INSIDE_DIFFERENCE} inside the window"
        parts.append(within(text, seed_interval(difference), INSIDE_DIFFERENCE))
    else:
        parts.append(required("a gap inside the window", False, "every gap is beyond reach"))
    text = f"recall of {slots or 'the arm on R2'} > {SLOTS_RECALL} on R2, beyond reach"
    found = [cell["recall"][evaluation] for cell in cells.get(slots, {}).values() if evaluation in cell["recall"]]
    if lack := _lack(found):
        parts.append(required(text, False, lack))
    else:
        parts.append(at_least(text, seed_interval(_far(found)), SLOTS_RECALL))
    for arm, name, expected in controls:
        parts.append(_control(cells, arm, name, expected))
    return Claim(key="a memory", text=MEMORY, parts=tuple(parts))


def drift_claim(cells: Cells, *, arm: str, teacher: str, evaluation: str = "drift") -> Claim:
    """Claim (b1) for one arm.

    Args:
        cells: see above.
        arm, teacher: compared.
        evaluation: name of the drift evaluation.
    """
    pairs = _Pairs(cells, arm, teacher, evaluation)
    parts = [pairs.enough()]
    if pairs.cells:
        gap = pairs.numbers(lambda report: report["exposure_gap"][-1]["mean"])
        loss = np.asarray([[cell["held_out_loss"] for cell in pair] for pair in pairs.cells], float).T  # None is NaN
        loss_text = f"one-step loss, held out, ≤ {HELD_OUT_RATIO} × {teacher}'s"
        parts += [
            pairs.slope(SLOPE_RATIO),
            at_most(f"exposure gap of the last segment below {teacher}'s", seed_interval(gap[0] - gap[1]), 0.0),
            pairs.early(),
            pairs.dead_motion(),
        ]
        if np.isnan(loss).any():
            parts.append(required(loss_text, False, "not measured: set training.validate_every"))
        else:
            parts.append(_ratio(loss_text, loss[0], loss[1], HELD_OUT_RATIO))
    return Claim(key=f"b1 drift, {arm}", text=DRIFT, parts=tuple(parts))


def recipe_claim(
    cells: Cells, step_times: Mapping[str, dict], *, arm: str, teacher: str, evaluation: str = "drift"
) -> Claim:
    """The bar for the recommended recipe: what a rollout gains, what its start loses, and the price.

    Args:
        cells: see above.
        step_times: arm → `step_time.paired_step_times` over teacher forcing.
        arm, teacher, evaluation: as for `drift_claim`.
    """
    pairs = _Pairs(cells, arm, teacher, evaluation)
    parts = [pairs.enough()]
    if pairs.cells:
        parts += [pairs.slope(RECIPE_SLOPE_RATIO), pairs.early(), pairs.alive()]
    cost = f"seconds an update ≤ {OTHER_COST} × {teacher}'s"
    if arm in step_times:
        parts.append(at_most(cost, _times(step_times[arm]), OTHER_COST))
    else:
        parts.append(required(cost, False, "not measured"))
    return Claim(key=f"recipe, {arm}", text=RECIPE, parts=tuple(parts))


class _Pairs:
    """The cells of an arm beside teacher forcing's, seed by seed, and the parts that several claims share."""

    def __init__(self, cells: Cells, arm: str, teacher: str, evaluation: str):
        self.cells = [(cells[arm][seed], cells[teacher][seed]) for seed in _shared(cells, arm, teacher)]
        self._teacher, self._evaluation = teacher, evaluation

    def numbers(self, pick: Callable[[dict], float]) -> tuple[np.ndarray, np.ndarray]:
        """A number of the arm's drift reports and of the teacher's, `[seeds]` each."""
        values = np.asarray([[pick(cell["drift"][self._evaluation]) for cell in pair] for pair in self.cells], float)
        return values[:, 0], values[:, 1]

    def enough(self) -> Part:
        """The gate: seeds, clips and seconds."""
        pairs = [[cell["drift"][self._evaluation] for cell in pair] for pair in self.cells]
        horizon = min((report["survival"]["horizon_seconds"] for pair in pairs for report in pair), default=0)
        clips = sum(min(report["clips"] for report in pair) for pair in pairs)
        return required(
            f"{DRIFT_SEEDS} seeds or more, {DRIFT_CLIPS} clips or more in all, {DRIFT_SECONDS:g} s or more",
            len(pairs) >= DRIFT_SEEDS and clips >= DRIFT_CLIPS and horizon >= DRIFT_SECONDS,
            f"there are {len(pairs)} seeds, {clips} clips and {horizon:g} s",
            gate=True,
        )

    def slope(self, bar: float) -> Part:
        """Growth of the error over the rollout."""
        slope = self.numbers(lambda report: report["error"]["slope"]["per_minute"])
        return _ratio(f"slope of the RMS error ≤ {bar} × {self._teacher}'s", *slope, bar)

    def early(self) -> Part:
        """Error at its start."""
        early = self.numbers(lambda report: report["error"]["early"]["mean"])
        return _ratio(f"RMS error of the first segments ≤ {EARLY_RATIO} × {self._teacher}'s", *early, EARLY_RATIO)

    def dead_motion(self) -> Part:
        """A frozen picture does not drift."""
        dead = self.numbers(lambda report: report["motion"]["dead_motion"]["mean"])
        text = f"dead motion at most {DEAD_MOTION_MARGIN} above {self._teacher}'s"
        return at_most(text, seed_interval(dead[0] - dead[1]), DEAD_MOTION_MARGIN)

    def alive(self) -> Part:
        """The same, of the arm alone."""
        dead = self.numbers(lambda report: report["motion"]["dead_motion"]["mean"])[0]
        return at_most(f"dead motion at most {RECIPE_DEAD_MOTION}", seed_interval(dead), RECIPE_DEAD_MOTION)


def cost_claim(step_times: Mapping[str, dict], *, literal: str) -> Claim:
    """Claim (b2).

    Args:
        step_times: arm → `step_time.paired_step_times` over teacher forcing.
        literal: the arm of the paper's Direct Forcing. Arms with more forward passes are not meant.
    """
    parts = []
    for arm, times in step_times.items():
        if arm != literal and times["other_forwards"] != times["reference_forwards"]:
            continue
        bound = LITERAL_COST if arm == literal else OTHER_COST
        parts.append(at_most(f"seconds an update of {arm} ≤ {bound} × teacher forcing's", _times(times), bound))
    if literal not in step_times:
        parts.append(required(f"step time of {literal}", False, "not measured"))
    return Claim(key="b2 cost", text=COST, parts=tuple(parts))


def tuned_cost_claim(step_times: Mapping[str, dict], *, literal: str) -> Claim:
    """Claim (b2) at the bound that holds once the step is tuned; arguments as for `cost_claim`."""
    text = f"seconds an update of {literal} ≤ {TUNED_COST} × teacher forcing's"
    if literal in step_times:
        part = at_most(text, _times(step_times[literal]), TUNED_COST)
    else:
        part = required(text, False, "not measured")
    return Claim(key="b2 cost, tuned", text=COST, parts=(part,))


def student_claim(
    cells: Cells,
    step_times: Mapping[str, dict],
    *,
    direct: str,
    teacher: str,
    students: Sequence[tuple[str, int]],
    evaluation: str = "drift",
) -> Claim:
    """Claim (b3), from slopes at checkpoints on the way.

    A run comes down to the given slope somewhere between the last checkpoint above it and the first at or below it, so
    the ratio of two times has bounds: the lower ones confirm, the upper ones refute. Time is updates times the measured
    step-time ratio over teacher forcing.

    Args:
        cells, step_times: as above; `teacher` is the reference of the step times.
        direct: the arm of Direct Forcing.
        teacher: the arm whose final slope sets the target.
        students: (arm, its sampler steps N).
        evaluation: name of the drift evaluation.
    """
    parts = []
    for student, steps in students:
        text = f"time of {student} to {SLOPE_RATIO} × {teacher}'s slope ≥ {steps / 2:g} × {direct}'s"
        if not {student, direct} <= step_times.keys():
            parts.append(required(text, False, "step times were not measured"))
            continue
        lower, upper = [], []
        for seed in _shared(cells, student, direct, teacher):
            target = SLOPE_RATIO * cells[teacher][seed]["drift"][evaluation]["error"]["slope"]["per_minute"]
            bounds = []
            for arm in (student, direct):
                above, below = _reached(cells[arm][seed]["drift_curve"][evaluation], target)
                bounds.append([bound * step_times[arm]["ratio"] for bound in (above, below)])
            (late_low, late_high), (early_low, early_high) = bounds
            lower.append(late_low / early_high if np.isfinite(early_high) else 0.0)
            upper.append(late_high / early_low if early_low > 0 else np.inf)
        parts.append(_between(text, np.asarray(lower), np.asarray(upper), steps / 2))
    return Claim(key="b3 student", text=STUDENT, parts=tuple(parts))


def _shared(cells: Cells, *arms: str) -> list[int]:
    """Seeds that every arm has."""
    return sorted(set.intersection(*(set(cells.get(arm, {})) for arm in arms)))


def _lack(reports: Sequence[dict]) -> str:
    """What recall reports of an arm, one a seed, lack for any verdict; empty if nothing."""
    clips = min((row["n"] for report in reports for row in report["gaps"]), default=0)
    if len(reports) >= RECALL_SEEDS and clips >= CLIPS_PER_GAP:
        return ""
    return f"there are {len(reports)} seeds and {clips} clips a gap"


def _at(reports: Sequence[dict], gaps: Sequence[int]) -> np.ndarray:
    """Recall pooled over gaps, `[seeds]`."""
    return np.asarray([_counts(report, gaps)[0] / _counts(report, gaps)[1] for report in reports])


def _far(reports: Sequence[dict]) -> np.ndarray:
    return np.asarray([report["beyond_reach"]["rate"] for report in reports], float)


def _counts(report: dict, gaps: Sequence[int]) -> tuple[int, int]:
    """Hits and clips at some gaps."""
    rows = [row for row in report["gaps"] if row["gap"] in gaps]
    return sum(round(row["rate"] * row["n"]) for row in rows), sum(row["n"] for row in rows)


def _chance(reports: Sequence[dict], beyond: Sequence[int], arm: str) -> list[Part]:
    """Recall pooled over seeds at chance: all gaps together, and each one after Bonferroni's correction.

    Seeds may be pooled: without a leak every clip is a hit with probability 1 / K, whatever the weights.
    """
    parts = []
    each = bonferroni_confidence(0.95, len(beyond))
    for gaps, confidence in [(list(beyond), 0.95), *(([gap], each) for gap in beyond)]:
        hits, clips = np.sum([_counts(report, gaps) for report in reports], axis=0)
        low, high = wilson_interval(int(hits), int(clips), confidence)
        chance = reports[0]["beyond_reach"]["chance"]
        where = "beyond reach" if confidence == 0.95 and gaps == list(beyond) else f"at gap {gaps[0]}"
        verdict = CONFIRMED if low <= chance <= high else REFUTED
        note = "" if confidence == 0.95 else f"interval at {100 * confidence:.3g} %"
        text = f"recall of {arm} at chance ({chance:.3g}) {where}"
        parts.append(Part(text=text, verdict=verdict, value=float(hits / clips), ci95=(low, high), note=note))
    return parts


def _control(cells: Cells, arm: str, evaluation: str, expected: str) -> Part:
    reports = [cell["recall"][evaluation] for cell in cells.get(arm, {}).values() if evaluation in cell["recall"]]
    text = f"control {evaluation} of {arm}: " + ("at chance" if expected == "chance" else f"recall ≥ {SUCCESS}")
    if lack := _lack(reports):
        return required(text, False, lack)
    if expected == "chance":
        beyond = [row["gap"] for row in reports[0]["gaps"] if row["beyond_reach"]]
        pooled = _chance(reports, beyond, arm)[0]
        return Part(text=text, verdict=pooled.verdict, value=pooled.value, ci95=pooled.ci95)
    return at_least(text, seed_interval(_far(reports)), SUCCESS)


def _ratio(text: str, values: np.ndarray, reference: np.ndarray, bound: float) -> Part:
    """value / reference <= bound over seeds; by the sign of value − bound · reference where a value is not positive."""
    if (values > 0).all() and (reference > 0).all():
        return at_most(text, paired_ratio_interval(values, reference), bound)
    part = at_most(text, seed_interval(values - bound * reference), 0.0)
    note = f"a number is not positive: value − {bound} × reference ≤ 0 is tested instead"
    return Part(text=text, verdict=part.verdict, value=part.value, ci95=part.ci95, note=note)


def _times(times: dict) -> tuple[float, float, float]:
    return times["ratio"], times["ci95"][0], times["ci95"][1]


def _reached(curve: Sequence[dict], target: float) -> tuple[float, float]:
    """(updates at the last checkpoint before the slope is first at most `target`, updates there), 0 and inf at ends."""
    above = 0.0
    for row in sorted(curve, key=lambda row: row["update"]):
        if row["slope"] <= target:
            return above, float(row["update"])
        above = float(row["update"])
    return above, float("inf")


def _between(text: str, lower: np.ndarray, upper: np.ndarray, bound: float) -> Part:
    """ratio >= bound over seeds, known between `lower` and `upper` in each."""
    if len(lower) < DRIFT_SEEDS:
        return required(text, False, f"there are {len(lower)} seeds, {DRIFT_SEEDS} are needed")
    ones = np.ones(len(lower))
    low = paired_ratio_interval(lower, ones) if (lower > 0).all() else (0.0, 0.0, 0.0)
    high = paired_ratio_interval(upper, ones) if np.isfinite(upper).all() and (upper > 0).all() else (np.inf,) * 3
    verdict = CONFIRMED if low[1] >= bound else REFUTED if high[2] < bound else UNDECIDED
    note = f"the ratio lies between {low[0]:.3g} and {high[0]:.3g}"
    return Part(text=text, verdict=verdict, ci95=(float(low[1]), float(high[2])), note=note)
