import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binom

from mpjax.errors import InputError
from mpjax.evaluation.study.ratings import (
    Votes,
    bradley_terry,
    bradley_terry_samples,
    elo_samples,
    expected_share,
    lead_of_share,
    percentile_interval,
    sequential_elo,
    votes_needed,
)

STRENGTHS = np.asarray([1434.0, 1459, 1537, 1568]) + 0.5  # PFVG's table, at mean 1500


def simulated(votes, seed, strengths=STRENGTHS, ties=0.0):
    rng = np.random.default_rng(seed)
    pairs = np.asarray([*itertools.permutations(range(len(strengths)), 2)])[rng.integers(0, 12, votes)]
    first, second = pairs.T
    share = 1 / (1 + 10 ** ((strengths[second] - strengths[first]) / 400))
    score = (rng.random(votes) < share).astype(float)
    score = np.where(rng.random(votes) < ties, 0.5, score)
    return Votes(first=first, second=second, score=score, cluster=np.arange(votes), systems=len(strengths))


def test_the_published_lead_needs_about_five_hundred_votes():
    assert math.isclose(expected_share(31), 0.5445, abs_tol=1e-4)
    assert votes_needed(31) == 486
    # Brute force: with n votes and a true share of 54.45 % the two-sided 5 % binomial test finds it half of the time.
    n = votes_needed(31)
    limit = next(k for k in range(n // 2, n) if binom.sf(k - 1, n, 0.5) <= 0.025)
    assert abs(binom.sf(limit - 1, n, expected_share(31)) - 0.5) < 0.05
    n = votes_needed(31, power=0.8)
    limit = next(k for k in range(n // 2, n) if binom.sf(k - 1, n, 0.5) <= 0.025)
    assert abs(binom.sf(limit - 1, n, expected_share(31)) - 0.8) < 0.02
    assert votes_needed(-31) == 486 and votes_needed(310) < 10
    for bad in (dict(lead=0.0), dict(lead=math.inf), dict(lead=31, power=1.0), dict(lead=31, confidence=0.0)):
        with pytest.raises(InputError):
            votes_needed(**bad)


def test_share_and_lead_are_inverse():
    for lead in (-400.0, -31.0, 0.0, 12.5, 800.0):
        assert math.isclose(lead_of_share(expected_share(lead)), lead, abs_tol=1e-9)
    assert math.isclose(expected_share(400), 10 / 11)


def test_elo_follows_its_definition():
    # By hand: the first vote moves 16 points; the second is lost by the leader of 32 points.
    ratings = sequential_elo(np.asarray([0, 0]), np.asarray([1, 1]), np.asarray([1.0, 0.0]), 2)[0]
    leader = 1516 + 32 * (0 - 1 / (1 + 10 ** (-32 / 400)))
    np.testing.assert_allclose(ratings, [leader, 3000 - leader], rtol=1e-12)
    skipped = sequential_elo(np.asarray([0, -1, 0]), np.asarray([1, 1, 1]), np.asarray([1.0, 1.0, 0.0]), 2)[0]
    np.testing.assert_array_equal(skipped, ratings)


def test_bradley_terry_of_two_systems_is_the_log_odds():
    ratings = bradley_terry(np.asarray([[0, 73.5], [26.5, 0]]))
    np.testing.assert_allclose(ratings[0] - ratings[1], 400 * math.log10(73.5 / 26.5), rtol=1e-12)
    np.testing.assert_allclose(ratings.mean(), 1500)


def test_bradley_terry_is_the_maximum_of_the_likelihood():
    wins = simulated(300, 3, ties=0.1).wins().sum(0)

    def loss(free):
        strength = np.append(free, -free.sum())
        return (wins * np.logaddexp(0, strength[None] - strength[:, None])).sum()

    best = minimize(loss, np.zeros(3), tol=1e-12).x
    expected = 1500 + 400 / math.log(10) * np.append(best, -best.sum())
    np.testing.assert_allclose(bradley_terry(wins), expected, atol=2e-3)


def test_lopsided_votes_converge_too():
    wins = np.asarray([[0, 1e4, 1], [1, 0, 1e4], [1, 1, 0]])
    ratings = bradley_terry(wins)
    share = 1 / (1 + 10 ** ((ratings[None] - ratings[:, None]) / 400))
    games = wins + wins.T
    np.testing.assert_allclose((games * share).sum(1), wins.sum(1), rtol=1e-9)  # the condition of a maximum


def test_no_maximum_where_a_system_wins_everything_or_nobody_met_it():
    assert np.isnan(bradley_terry(np.asarray([[0, 5.0], [0, 0]]))).all()
    assert np.isnan(bradley_terry(np.asarray([[0, 5.0, 0], [3, 0, 0], [0, 0, 0]]))).all()
    cycle = np.roll(np.eye(5), 1, axis=1)  # each beat the next one, the last the first
    chain = np.triu(np.ones((5, 5)), 1)
    np.testing.assert_allclose(bradley_terry(np.stack([cycle, chain])), [[1500] * 5, [np.nan] * 5])


def test_known_strengths_lie_in_their_intervals():
    inside = []
    for seed in range(25):
        votes = simulated(600, seed)
        samples = bradley_terry_samples(votes, resamples=200, seed=seed)
        intervals = [percentile_interval(column) for column in samples.T]
        inside += [low <= true <= high for true, (low, high) in zip(STRENGTHS, intervals, strict=True)]
    # 100 intervals of 95 %: fewer than 86 or none missed would be a wrong width (P < 0.001 and < 0.01).
    assert 86 <= sum(inside) <= 99
    # Wide intervals could not do better: the ends tell the strongest from the weakest system in each study.
    assert all(low < high for low, high in intervals) and intervals[3][0] > intervals[0][1]


def test_elo_of_resamples_is_around_the_strengths():
    votes = simulated(3000, 1)
    samples = elo_samples(votes, resamples=200)
    np.testing.assert_allclose(samples.mean(0), STRENGTHS, atol=20)
    for true, column in zip(STRENGTHS, samples.T, strict=True):
        low, high = percentile_interval(column)
        assert low <= true <= high
        assert 40 < high - low < 200  # K = 32 never settles


def test_resamples_draw_whole_clusters():
    # One rater casts each vote forty times: the interval must be that of the raters, not of the votes.
    single = simulated(200, 5)
    votes = Votes(
        first=np.repeat(single.first, 40),
        second=np.repeat(single.second, 40),
        score=np.repeat(single.score, 40),
        cluster=np.repeat(single.cluster, 40),
        systems=4,
    )
    a, b = (bradley_terry_samples(v, resamples=200, seed=2) for v in (single, votes))
    np.testing.assert_allclose(a, b, atol=1e-6)
    small = elo_samples(votes, resamples=3)
    assert small.shape == (3, 4) and np.isfinite(small).all()


def test_resamples_without_a_maximum_open_the_interval():
    samples = np.r_[np.full(5, np.nan), np.arange(95.0)]
    assert percentile_interval(samples) == (-math.inf, math.inf)
    samples = np.r_[np.full(1, np.nan), np.arange(99.0)]
    assert percentile_interval(samples) == (1.0, 97.0)


def test_votes_are_checked():
    none = np.zeros(0, int)
    with pytest.raises(InputError, match="no votes"):
        Votes(first=none, second=none, score=none, cluster=none, systems=2)
    one = np.zeros(1, int)
    with pytest.raises(InputError, match="with itself"):
        Votes(first=one, second=one, score=one, cluster=one, systems=2)
