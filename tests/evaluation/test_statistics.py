import numpy as np
import pytest
from scipy import stats

from mpjax.errors import InputError
from mpjax.evaluation.statistics import (
    bonferroni_confidence,
    mean_interval,
    mean_intervals,
    newcombe_interval,
    paired_ratio_interval,
    seed_interval,
    theil_sen_interval,
    theil_sen_slope,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (1, 16), (7, 7), (128, 256), (243, 300), (1, 1)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.9944])
def test_wilson_against_scipy(successes, trials, confidence):
    known = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, trials, confidence), known, atol=1e-12)


def test_wilson_covers_as_often_as_it_says():
    trials, rate = 200, 1 / 16
    weight = stats.binom.pmf(np.arange(trials + 1), trials, rate)
    intervals = np.asarray([wilson_interval(k, trials) for k in range(trials + 1)])
    covered = (intervals[:, 0] <= rate) & (rate <= intervals[:, 1])
    assert 0.93 < weight[covered].sum() < 0.98


def test_newcombe_against_the_published_table():
    # Newcombe (1998), Statistics in Medicine 17, 873-890, table II, method 10.
    for counts, expected in (
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((10, 10, 0, 20), (0.6791, 1.0000)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
    ):
        np.testing.assert_allclose(newcombe_interval(*counts), expected, atol=5e-5)
    low, high = newcombe_interval(30, 100, 60, 100)
    np.testing.assert_allclose(newcombe_interval(60, 100, 30, 100), (-high, -low))


def test_bonferroni():
    assert bonferroni_confidence(0.95, 1) == pytest.approx(0.95)
    assert bonferroni_confidence(0.95, 5) == pytest.approx(0.99)


def test_theil_sen_against_scipy():
    rng = np.random.default_rng(0)
    for n in (2, 3, 24, 60):
        x, y = rng.permutation(n).astype(float), rng.normal(size=n)
        assert theil_sen_slope(x, y) == pytest.approx(stats.theilslopes(y, x).slope, rel=1e-12)


def test_theil_sen_interval():
    rng = np.random.default_rng(1)
    times = np.arange(30) / 10
    clips = 0.7 * times + rng.normal(0, 0.5, (64, 1)) * times + rng.normal(0, 0.1, (64, 30))
    slope, low, high = theil_sen_interval(times, clips, resamples=400, seed=3)
    assert slope == pytest.approx(stats.theilslopes(clips.mean(0), times).slope)
    # The slopes of the clips differ with standard deviation .5, so that of their mean is .5 / 8.
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 8, rel=0.25)
    assert low < slope < high
    assert theil_sen_interval(times, clips, resamples=400, seed=3) == (slope, low, high)
    assert theil_sen_interval(times, clips, resamples=400, seed=4) != (slope, low, high)
    exact = theil_sen_interval(times, np.tile(2 * times - 1, (5, 1)), resamples=20)
    np.testing.assert_allclose(exact, 2)


def test_a_late_collapse_of_few_clips_is_seen():
    clips = np.zeros((10, 40))
    for n in range(10):
        clips[n, 4 * n + 2 :] = 1
    each = [theil_sen_slope(np.arange(40), clip) for clip in clips]
    slope, _, _ = theil_sen_interval(np.arange(40), clips, resamples=20)
    assert slope == pytest.approx(1 / 40, rel=0.1) and np.median(each) == 0


def test_mean_interval_against_the_normal_form():
    values = np.random.default_rng(2).exponential(2, 400)
    mean, low, high = mean_interval(values, resamples=2000)
    half = 1.96 * values.std(ddof=1) / 20
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - half, abs=0.15 * half) and high == pytest.approx(mean + half, abs=0.15 * half)
    wide = mean_interval(values, resamples=2000, confidence=0.99)
    assert wide[2] - wide[1] == pytest.approx((high - low) * 2.576 / 1.96, rel=0.12)
    assert mean_interval(np.full(5, 3.0)) == (3, 3, 3)
    table = np.stack([values, values**2, -values], axis=1)
    each = [mean_interval(column, resamples=200, seed=3) for column in table.T]
    np.testing.assert_allclose(mean_intervals(table, resamples=200, seed=3), each, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: wilson_interval(3, 0), "trials"),
        (lambda: wilson_interval(3, 2), "successes"),
        (lambda: wilson_interval(1, 2, 95), "confidence"),
        (lambda: bonferroni_confidence(0.95, 0), "comparisons"),
        (lambda: theil_sen_slope([1.0], [2.0]), "times"),
        (lambda: theil_sen_slope([1.0, 1.0], [2.0, 3.0]), "times"),
        (lambda: mean_interval([]), "values"),
        (lambda: mean_interval([1.0, np.nan]), "finite"),
    ],
)
def test_wrong_input_is_named(call, named):
    with pytest.raises(InputError, match=named):
        call()


def test_seed_interval_against_scipy():
    values = np.random.default_rng(0).normal(size=5)
    mean, low, high = seed_interval(values)
    expected = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    np.testing.assert_allclose((mean, low, high), (values.mean(), *expected))
    assert seed_interval(np.asarray([2.0])) == (2.0, -np.inf, np.inf)
    with pytest.raises(InputError):
        seed_interval(np.asarray([1.0, np.nan]))


def test_seed_interval_covers_where_a_bootstrap_does_not():
    draws = np.random.default_rng(1).normal(size=(2000, 5))
    covered = np.mean([low <= 0 <= high for _, low, high in map(seed_interval, draws)])
    assert 0.93 < covered < 0.97
    ends = [mean_interval(row, resamples=200)[1:] for row in draws[:500]]
    assert np.mean([low <= 0 <= high for low, high in ends]) < 0.88


def test_paired_ratio_is_the_ratio_of_geometric_means():
    rng = np.random.default_rng(2)
    reference = np.exp(rng.normal(size=6))  # seeds differ a lot
    values = 0.7 * reference * np.exp(0.05 * rng.normal(size=6))
    ratio, low, high = paired_ratio_interval(values, reference)
    assert ratio == pytest.approx(stats.gmean(values) / stats.gmean(reference))
    expected = stats.ttest_rel(np.log(values), np.log(reference)).confidence_interval(0.95)
    np.testing.assert_allclose((low, high), np.exp([expected.low, expected.high]))
    with pytest.raises(InputError, match="positive"):
        paired_ratio_interval(values, reference * [1, 1, 1, 1, 1, 0])
