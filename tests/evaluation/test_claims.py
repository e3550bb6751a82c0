"""Every claim can be confirmed, refuted and left undecided, and each part alone can flip it."""

import numpy as np
import pytest

from mpjax.evaluation import claims
from mpjax.evaluation.verdict import CONFIRMED, REFUTED, UNDECIDED, as_json, as_markdown, at_least, at_most, within

GAPS = (0, 1, 2, 4, 8, 16)
CLIPS = 256
CHANCE = 1 / 16


def recall_report(inside, beyond, clips=CLIPS, gaps=GAPS):
    """A report whose recall is `inside` at gaps 0 and 1 and `beyond[gap]`, or `beyond`, farther away."""
    rows, far = [], []
    for gap in gaps:
        rate = inside if gap < 2 else beyond.get(gap, 0.8) if isinstance(beyond, dict) else beyond
        hits = round(rate * clips)
        rows.append({"gap": gap, "n": clips, "rate": hits / clips, "chance": CHANCE, "beyond_reach": gap >= 2})
        far += [hits / clips] if gap >= 2 else []
    return {"gaps": rows, "beyond_reach": {"rate": float(np.mean(far)), "n": clips * len(far), "chance": CHANCE}}


def memory_cells(seeds=3, **changes):
    """Cells of a memory that works; `changes` are (inside, beyond) of an arm, or of the control."""
    arms = {"memory": (0.9, 0.8), "none": (0.9, CHANCE), "r2": (0.9, 0.7)} | changes
    control = arms.pop("reset", (0.9, CHANCE))
    shift = [0.0, 0.02, -0.02]
    cells = {}
    for arm, (inside, beyond) in arms.items():
        cells[arm] = {}
        for seed in range(seeds):
            moved = beyond + shift[seed] * (arm != "none") if not isinstance(beyond, dict) else beyond
            cells[arm][seed] = {"recall": {"recall": recall_report(inside, moved)}}
    for seed in range(seeds):
        cells["memory"][seed]["recall"]["reset"] = recall_report(*control)
    return cells


def memory_verdict(cells, **keywords):
    controls = [("memory", "reset", "chance")]
    return claims.memory_claim(cells, memory="memory", none="none", slots="r2", controls=controls, **keywords)


def test_memory_that_works_is_confirmed_in_every_part():
    claim = memory_verdict(memory_cells())
    assert {part.verdict for part in claim.parts} == {CONFIRMED} and claim.verdict == CONFIRMED
    # Seeds, horizon, four gaps, chance pooled and at each of them, inside, R2, a control.
    assert len(claim.parts) == 2 + 4 + 5 + 1 + 1 + 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory": (0.9, {8: 0.3})}, "at gap 8"),  # one gap is enough
        ({"none": (0.9, {2: 0.2, 4: CHANCE, 8: CHANCE, 16: CHANCE})}, "at chance (0.0625) at gap 2"),  # a leak
        ({"memory": (0.7, 0.8)}, "inside the window"),
        ({"r2": (0.9, 0.3)}, "on R2"),
        ({"reset": (0.9, 0.5)}, "control reset"),
    ],
)
def test_one_violated_part_refutes_memory(changes, said):
    claim = memory_verdict(memory_cells(**changes))
    assert claim.verdict == REFUTED
    refuted = [part.text for part in claim.parts if part.verdict == REFUTED]
    assert refuted and all(said in text or "at chance" in text for text in refuted) and said in "".join(refuted)


def test_too_little_data_refutes_nothing():
    assert memory_verdict(memory_cells(seeds=2, memory=(0.9, 0.1))).verdict == UNDECIDED
    few = drift_cells(BETTER | {"slope": 3.0}, seeds=4)
    assert claims.drift_claim(few, arm="arm", teacher="teacher").verdict == UNDECIDED


def test_memory_is_undecided_without_enough_data():
    claim = memory_verdict(memory_cells(seeds=2))
    assert claim.verdict == UNDECIDED and claim.parts[0].verdict == UNDECIDED
    noisy = memory_cells()
    for seed, rate in enumerate((0.95, 0.65, 0.35)):  # a mean gain of .59, but it depends on the seed
        noisy["memory"][seed]["recall"]["recall"] = recall_report(0.9, rate)
    assert memory_verdict(noisy).verdict == UNDECIDED
    cells = memory_cells()
    del cells["r2"]
    assert memory_verdict(cells).verdict == UNDECIDED
    near = memory_cells()
    for arm in near.values():
        for cell in arm.values():
            cell["recall"]["recall"]["gaps"] = cell["recall"]["recall"]["gaps"][:-1]
    assert memory_verdict(near).parts[1].verdict == UNDECIDED  # up to gap 8 only: four windows


@pytest.mark.parametrize(("rate", "place"), [(CHANCE, "reset"), (0.9, "reset"), (0.9, "r2"), (0.1, "r2")])
def test_controls_and_slots_say_nothing_with_few_seeds_or_clips(rate, place):
    def verdict(seeds, clips):
        cells = memory_cells()
        if place == "r2":
            cells["r2"] = {seed: {"recall": {"recall": recall_report(0.9, rate, clips)}} for seed in range(seeds)}
        for seed in range(3):
            if place == "reset":
                del cells["memory"][seed]["recall"]["reset"]
                if seed < seeds:
                    cells["memory"][seed]["recall"]["reset"] = recall_report(0.9, rate, clips)
        return next(part.verdict for part in memory_verdict(cells).parts if place in part.text)

    assert verdict(3, CLIPS) == (CONFIRMED if (rate, place) in ((CHANCE, "reset"), (0.9, "r2")) else REFUTED)
    assert verdict(2, CLIPS) == verdict(3, CLIPS - 16) == UNDECIDED


TEACHER = {"slope": 1.0, "early": 0.1, "gap": 0.3, "dead": 0.05, "loss": 0.2}
BETTER = {"slope": 0.5, "early": 0.1, "gap": 0.1, "dead": 0.05, "loss": 0.2}


def drift_cells(arm, seeds=5, noise=0.01, seconds=60.0, clips=52):
    rng = np.random.default_rng(0)
    cells = {}
    for name, numbers in (("teacher", TEACHER), ("arm", arm)):
        cells[name] = {}
        for seed in range(seeds):
            factor = np.exp(noise * rng.normal(size=5))
            slope, early, gap, dead, loss = np.asarray(list(numbers.values())) * factor
            report = {
                "error": {"slope": {"per_minute": slope}, "early": {"mean": early}},
                "exposure_gap": [{"mean": 0.0}, {"mean": gap}],
                "motion": {"dead_motion": {"mean": dead}},
                "survival": {"horizon_seconds": seconds},
                "clips": clips,
            }
            cells[name][seed] = {"drift": {"drift": report}, "held_out_loss": loss}
    return cells


def test_a_forcing_that_keeps_what_it_claims_is_confirmed():
    claim = claims.drift_claim(drift_cells(BETTER), arm="arm", teacher="teacher")
    assert claim.verdict == CONFIRMED and len(claim.parts) == 6
    between = drift_cells(BETTER | {"slope": 0.7})
    assert claims.drift_claim(between, arm="arm", teacher="teacher").verdict == CONFIRMED


def recipe_verdict(ratio=1.05, **changes):
    measured = {"arm": times(ratio)} if ratio else {}
    cells = drift_cells(BETTER | {"dead": 0.001} | changes)
    return claims.recipe_claim(cells, measured, arm="arm", teacher="teacher")


def test_a_recipe_is_held_to_its_own_bar():
    assert {part.verdict for part in recipe_verdict().parts} == {CONFIRMED} and len(recipe_verdict().parts) == 5
    # What the recipe's bar does not ask for.
    assert recipe_verdict(loss=0.9, gap=0.4).verdict == CONFIRMED
    assert recipe_verdict(ratio=None).verdict == UNDECIDED
    assert claims.recipe_claim({}, {"arm": times(1.0)}, arm="arm", teacher="teacher").verdict == UNDECIDED
    violated = {
        "slope": recipe_verdict(slope=0.7),
        "first segments": recipe_verdict(early=0.115),
        "dead motion": recipe_verdict(dead=0.09),
        "seconds an update": recipe_verdict(ratio=1.2),
    }
    for said, claim in violated.items():
        assert claim.verdict == REFUTED
        assert [said in part.text for part in claim.parts if part.verdict == REFUTED] == [True]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slope": 0.9}, "slope of the RMS error"),
        ({"gap": 0.4}, "exposure gap"),
        ({"early": 0.115}, "first segments"),
        ({"dead": 0.09}, "dead motion"),
        ({"loss": 0.22}, "one-step loss"),
    ],
)
def test_one_violated_part_refutes_a_forcing(changes, said):
    claim = claims.drift_claim(drift_cells(BETTER | changes), arm="arm", teacher="teacher")
    assert claim.verdict == REFUTED
    assert [said in part.text for part in claim.parts if part.verdict == REFUTED] == [True]


def test_a_forcing_is_undecided_with_few_seeds_a_short_rollout_or_much_noise():
    few = drift_cells(BETTER, clips=51)  # 255 in all
    short, noisy = drift_cells(BETTER, seconds=30.0), drift_cells(BETTER, noise=0.4)
    for cells in (drift_cells(BETTER, seeds=4, clips=64), few, short, noisy):
        assert claims.drift_claim(cells, arm="arm", teacher="teacher").verdict == UNDECIDED
    assert claims.drift_claim({}, arm="arm", teacher="teacher").verdict == UNDECIDED


def test_a_loss_that_was_not_measured_decides_nothing():
    cells = drift_cells(BETTER)
    cells["arm"][3]["held_out_loss"] = None
    claim = claims.drift_claim(cells, arm="arm", teacher="teacher")
    assert claim.verdict == UNDECIDED and "validate_every" in claim.parts[-1].note


def test_a_slope_below_zero_is_decided_by_differences():
    claim = claims.drift_claim(drift_cells(BETTER | {"slope": -0.1}), arm="arm", teacher="teacher")
    slope = claim.parts[1]
    assert slope.verdict == CONFIRMED and "not positive" in slope.note
    # −0.1 − 0.8 · 1
    assert slope.value == pytest.approx(-0.9, abs=0.03)


def times(ratio, half=0.01, forwards=3.0):
    return {
        "ratio": ratio,
        "ci95": [ratio - half, ratio + half],
        "reference_forwards": 3.0,
        "other_forwards": forwards,
    }


def test_cost_of_arms_without_more_forwards():
    measured = {"direct": times(1.03), "residual": times(1.08), "student": times(4.0, forwards=18.0)}
    claim = claims.cost_claim(measured, literal="direct")
    assert claim.verdict == CONFIRMED and len(claim.parts) == 2
    assert claims.tuned_cost_claim(measured, literal="direct").verdict == UNDECIDED  # [1.02, 1.04] against 1.02
    assert claims.tuned_cost_claim({"direct": times(1.005)}, literal="direct").verdict == CONFIRMED
    assert claims.cost_claim(measured | {"direct": times(1.08)}, literal="direct").verdict == REFUTED
    assert claims.cost_claim(measured | {"residual": times(1.2)}, literal="direct").verdict == REFUTED
    assert claims.cost_claim(measured | {"direct": times(1.05)}, literal="direct").verdict == UNDECIDED
    assert claims.cost_claim({}, literal="direct").verdict == UNDECIDED
    # A literal arm that pays for more forward passes is not left out.
    dear = {"direct": times(2.0, forwards=6.0), "residual": times(1.0)}
    assert claims.cost_claim(dear, literal="direct").verdict == REFUTED


def curves(direct, student, seeds=5):
    """Cells of which `direct` and `student` come down to a slope of 0.8 at these updates of 100, 200, 300, 400."""
    cells = {"teacher": {}, "direct": {}, "student_5": {}}
    for seed in range(seeds):
        slope = {"error": {"slope": {"per_minute": 1.0}}}
        cells["teacher"][seed] = {"drift": {"drift": slope}}
        for arm, reached in (("direct", direct), ("student_5", student)):
            rows = [{"update": n, "slope": 0.7 if n >= reached else 0.9} for n in (400, 100, 200, 300)]
            cells[arm][seed] = {"drift_curve": {"drift": rows}}
    return cells


@pytest.mark.parametrize(
    ("direct", "student", "ratio", "verdict"),
    [
        (200, 300, 4.0, CONFIRMED),  # at least 4 · 200 / 200
        (200, 1000, 4.0, CONFIRMED),  # never within the run: at least 4 · 400 / 200
        (400, 200, 1.2, REFUTED),  # at most 1.2 · 200 / 300
        (400, 1000, 1.2, UNDECIDED),  # at least 1.2, no upper bound
        (100, 200, 1.2, UNDECIDED),  # the first checkpoint is there already: no lower bound of its time
        (1000, 300, 4.0, UNDECIDED),  # never reached by Direct Forcing
    ],
)
def test_student_forcing_against_direct(direct, student, ratio, verdict):
    step_times = {"student_5": times(ratio), "direct": times(1.0)}
    arguments = {"direct": "direct", "teacher": "teacher", "students": [("student_5", 5)]}
    claim = claims.student_claim(curves(direct, student), step_times, **arguments)
    assert claim.verdict == verdict, claim
    assert claims.student_claim(curves(direct, student, seeds=4), step_times, **arguments).verdict == UNDECIDED
    assert claims.student_claim(curves(direct, student), {}, **arguments).verdict == UNDECIDED


def test_verdicts_of_intervals():
    assert [at_least("", (0.5, low, 0.6), 0.5).verdict for low in (0.5, 0.49)] == [CONFIRMED, UNDECIDED]
    assert at_least("", (0.4, 0.3, 0.49), 0.5).verdict == REFUTED
    assert at_least("", (0.4, 0.3, 0.49), 0.5, refuting=(0.4, 0.2, 0.55)).verdict == UNDECIDED
    assert [at_most("", (0.4, 0.3, high), 0.5).verdict for high in (0.5, 0.51)] == [CONFIRMED, UNDECIDED]
    assert at_most("", (0.6, 0.51, 0.7), 0.5).verdict == REFUTED
    assert within("", (0.0, -0.04, 0.04), 0.05).verdict == CONFIRMED
    assert within("", (0.0, -0.06, 0.04), 0.05).verdict == UNDECIDED
    assert within("", (-0.1, -0.2, -0.06), 0.05).verdict == REFUTED


def test_claims_as_json_and_markdown():
    claim = claims.drift_claim(drift_cells(BETTER, seeds=1), arm="arm", teacher="teacher")
    plain = as_json(claim)
    assert plain["verdict"] == UNDECIDED and plain["parts"][1]["ci95"] == [0.0, None]
    text = as_markdown([claim])
    assert "## b1 drift, arm: undecided" in text and text.count("\n| ") == 1 + 6
