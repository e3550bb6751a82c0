import json

import numpy as np
import pytest
from scipy import optimize, stats

from mpjax.data.recallworld.world import World
from mpjax.errors import InputError
from mpjax.evaluation.recall_metrics import (
    attribute_accuracy,
    hallucination_rate,
    leak_test,
    recall_by_gap,
    recall_half_life,
    recall_report,
    slot_swap_rate,
)

WORLD = World()
GAPS = np.repeat([0, 1, 2, 3, 4], 200)


def answers(rng, rates):
    """Truth and answers that are right with the rate of their gap, else another toy."""
    truth = rng.integers(0, 16, GAPS.size)
    right = rng.uniform(size=GAPS.size) < np.asarray(rates)[GAPS]
    return np.where(right, truth, (truth + rng.integers(1, 16, GAPS.size)) % 16), truth


def test_recall_by_gap_counts():
    decoded, truth = answers(np.random.default_rng(0), [1, 0.8, 0.5, 0.1, 0])
    rows = recall_by_gap(decoded, truth, GAPS, ids=16, beyond_reach=WORLD.beyond_reach)
    assert [row["gap"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["beyond_reach"] for row in rows] == [False, False, True, True, True]
    for row in rows:
        hits = sum(d == t for d, t, g in zip(decoded, truth, GAPS, strict=True) if g == row["gap"])
        assert (row["n"], row["rate"], row["chance"]) == (200, hits / 200, 0.0625)
        known = stats.binomtest(int(hits), 200).proportion_ci(method="wilson")
        np.testing.assert_allclose(row["ci95"], known)


def test_leak_test_passes_a_guesser_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    passed = 0
    for _ in range(200):
        decoded, truth = answers(rng, [1, 1, 1 / 16, 1 / 16, 1 / 16])
        passed += leak_test(decoded, truth, GAPS, ids=16, beyond_reach=WORLD.beyond_reach)["passed"]
    assert 0.86 < passed / 200 < 0.985


def hits_by_gap(counts):
    """Answers with this many right out of 200 at each gap."""
    truth, decoded = np.zeros(GAPS.size, int), np.ones(GAPS.size, int)
    for gap, hits in counts.items():
        decoded[np.flatnonzero(gap == GAPS)[:hits]] = 0
    return decoded, truth


def test_leak_test_finds_leaks_in_one_gap_and_in_all():
    # 1/16 of 200 is 12.5. One gap far off while the pool is right; every gap a little off, and the pool too much.
    for counts, pooled, per_gap in (
        ({2: 30, 3: 4, 4: 5}, True, [False, False, True]),
        ({2: 19, 3: 19, 4: 19}, False, [True, True, True]),
        ({2: 12, 3: 13, 4: 12}, True, [True, True, True]),
    ):
        test = leak_test(*hits_by_gap(counts), GAPS, ids=16, beyond_reach=WORLD.beyond_reach)
        assert test["pooled"]["contains_chance"] is pooled and test["pooled"]["n"] == 600
        assert [row["contains_chance"] for row in test["gaps"]] == per_gap
        assert test["passed"] is (pooled and all(per_gap))


def test_leak_test_corrects_for_the_number_of_gaps():
    # 20 of 200 is outside 1/16 at 95 %, inside at 98.33 %; the other gaps pull the pool back.
    test = leak_test(*hits_by_gap({2: 20, 3: 10, 4: 10}), GAPS, ids=16, beyond_reach=WORLD.beyond_reach)
    assert stats.binomtest(20, 200).proportion_ci(0.95, "wilson").low > 1 / 16
    known = stats.binomtest(20, 200).proportion_ci(1 - 0.05 / 3, "wilson")
    np.testing.assert_allclose(test["gaps"][0]["ci"], known)
    assert known.low < 1 / 16 and test["passed"] is True


def test_leak_test_without_a_row_beyond_reach_says_nothing():
    test = leak_test([1], [1], [0], ids=16, beyond_reach=WORLD.beyond_reach)
    assert test["passed"] is None and test["pooled"]["n"] == 0 and test["gaps"] == []


def test_attributes_by_table():
    # Identity = colour · 4 + shape.
    told = attribute_accuracy([0, 5, 6, 15], [1, 5, 10, 0], colours=4, shapes=4)
    assert told["colour"]["rate"] == 0.5 and told["shape"]["rate"] == 0.5
    told = attribute_accuracy([0, 1, 2], [5, 5, 5], colours=8, shapes=3)
    assert (told["colour"]["rate"], told["shape"]["rate"]) == (0, pytest.approx(1 / 3))
    assert told["colour"]["chance"] == 1 / 8 and told["shape"]["chance"] == 1 / 3


def test_hallucination_and_slots():
    assert hallucination_rate([0.1, 0.3, 0.5, 0.2], 0.25)["rate"] == 0.5
    told = slot_swap_rate([1, 2, 3, 9], [1, 1, 3, 5], [2, 2, 4, 6])
    assert told["swap"]["rate"] == 0.25 and told["either"]["rate"] == 0.75


def falling(gaps, half, beta, chance=1 / 16):
    return chance + (1 - chance) / (1 + (gaps / half) ** beta)


@pytest.mark.parametrize(("half", "beta"), [(4.0, 2.0), (10.0, 1.0), (2.5, 4.0)])
def test_half_life_is_recovered_and_agrees_with_a_continuous_fit(half, beta):
    rng = np.random.default_rng(3)
    gaps = np.repeat([0, 1, 2, 3, 4, 6, 8, 16, 32, 56], 3000)
    correct = rng.uniform(size=gaps.size) < np.where(gaps == 0, 1, falling(np.maximum(gaps, 1e-9), half, beta))
    found = recall_half_life(correct, gaps, chance=1 / 16)
    assert found == pytest.approx(half, rel=0.06)

    def loss(p):
        rate = falling(gaps[gaps > 0], np.exp(p[0]), np.exp(p[1]))
        return -np.log(np.where(correct[gaps > 0], rate, 1 - rate)).sum()

    fit = optimize.minimize(loss, [np.log(5), 0.0], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-4})
    assert found == pytest.approx(np.exp(fit.x[0]), rel=0.02)


def test_no_half_life_where_recall_does_not_fall():
    rng = np.random.default_rng(4)
    gaps = np.repeat([1, 2, 4, 8, 16], 200)
    flat = [recall_half_life(rng.uniform(size=1000) < rate, gaps, chance=1 / 16) for rate in (0.8, 1 / 16, 1.0) * 5]
    assert sum(half is not None for half in flat) <= 2
    rising = rng.uniform(size=1000) < np.asarray(gaps) / 20
    assert recall_half_life(rising, gaps, chance=1 / 16) is None
    assert recall_half_life([True, False], [2, 2], chance=1 / 16) is None
    assert recall_half_life([True, False], [0, 0], chance=1 / 16) is None
    sharp = recall_half_life(gaps <= 4, gaps, chance=1 / 16)
    assert 4 < sharp < 8


def test_report_is_json_and_agrees_with_its_parts():
    rng = np.random.default_rng(5)
    decoded, truth = answers(rng, [1, 1, 0.9, 0.6, 0.3])
    other = (truth + 1) % 16
    report = recall_report(
        decoded,
        truth,
        GAPS,
        colours=4,
        shapes=4,
        beyond_reach=WORLD.beyond_reach,
        residual=np.linspace(0, 1, GAPS.size),
        hallucination_threshold=0.75,
        other=other,
    )
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    far = GAPS >= 2
    assert report["beyond_reach"]["rate"] == (decoded == truth)[far].mean()
    assert report["beyond_reach"]["n"] == 600 and report["attributes"]["colour"]["n"] == 600
    assert report["leak_test"]["passed"] is False
    assert report["half_life"] is not None
    assert report["hallucination"]["rate"] == 0.25
    assert report["slots"]["swap"]["rate"] == (decoded == other).mean()


def test_report_without_a_gap_beyond_reach_is_still_json():
    report = recall_report(
        [1, 2],
        [1, 3],
        [0, 1],
        colours=4,
        shapes=4,
        beyond_reach=WORLD.beyond_reach,
        residual=[0, 0],
        hallucination_threshold=0.1,
    )
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["beyond_reach"]["rate"] is None and report["slots"] is None


def test_rows_that_do_not_match_are_refused():
    with pytest.raises(InputError, match="rows"):
        recall_by_gap([1, 2], [1, 2], [0], ids=16, beyond_reach=WORLD.beyond_reach)
    with pytest.raises(InputError, match="rows"):
        attribute_accuracy([1, 2], [1], colours=4, shapes=4)
