"""Intervals and slopes, each from its textbook form.

Proportions: Wilson's score interval (1927), and for a difference Newcombe's hybrid of two of them (1998, method 10).
The median: order statistics. Means and slopes over clips: percentile bootstrap, where a resample draws whole clips with
replacement, since the frames of one clip are not independent. Training seeds are too few for a bootstrap (of five, its
percentiles span about 60 % of what they should): over seeds, Student's t, on the log where a ratio is asked for.
"""

import math
from statistics import NormalDist

import numpy as np
from scipy.special import stdtrit

from mpjax.errors import InputError

RESAMPLES = 1000


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion.

    Args:
        successes: 0..trials.
        trials: 1 or more.
        confidence: in (0, 1).

    Returns:
        low, high: in [0, 1].

    Raises:
        InputError: the counts or the confidence are out of range.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise InputError(f"successes is {successes} of trials {trials}: use 0 to trials, and one trial or more")
    z = NormalDist().inv_cdf(0.5 + _check_confidence(confidence) / 2)
    rate = successes / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z * np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    # At the ends the interval reaches 0 and 1 exactly; rounding must not cut that off.
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == trials else float(centre + half)
    return low, high


def bonferroni_confidence(confidence: float, comparisons: int) -> float:
    """Confidence of each of several intervals such that all hold together with `confidence` or more.

    Raises:
        InputError: no comparison, or a confidence outside (0, 1).
    """
    if comparisons < 1:
        raise InputError(f"comparisons is {comparisons}: use 1 or more")
    return 1 - (1 - _check_confidence(confidence)) / comparisons


def newcombe_interval(
    successes_a: int, trials_a: int, successes_b: int, trials_b: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of the difference of two independent proportions, rate a minus rate b.

    Returns:
        low, high: in [-1, 1].

    Raises:
        InputError: as `wilson_interval`.
    """
    low_a, high_a = wilson_interval(successes_a, trials_a, confidence)
    low_b, high_b = wilson_interval(successes_b, trials_b, confidence)
    rate_a, rate_b = successes_a / trials_a, successes_b / trials_b
    difference = rate_a - rate_b
    low = difference - np.hypot(rate_a - low_a, high_b - rate_b)
    high = difference + np.hypot(high_a - rate_a, rate_b - low_b)
    return float(low), float(high)


def theil_sen_slope(times: np.ndarray, values: np.ndarray) -> float:
    """Median of the slopes through all pairs of points: a line fit that single outliers cannot bend.

    Args:
        times: float `[t]`, all different.
        values: float `[t]`.

    Raises:
        InputError: fewer than two points, or times that repeat.
    """
    return float(_theil_sen(times, np.asarray(values, float)[None])[0])


def theil_sen_interval(
    times: np.ndarray, values: np.ndarray, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Theil-Sen slope of the mean curve over clips, with a percentile bootstrap over clips.

    The curve is averaged before the slope is taken: a clip that decays late and at once has a Theil-Sen slope of zero
    by itself, and would hide.

    Args:
        times: float `[t]`, all different.
        values: float `[n, t]`, one row a clip.
        confidence: in (0, 1).
        resamples: bootstrap resamples.
        seed: of the resampling.

    Returns:
        slope, low, high.

    Raises:
        InputError: as `theil_sen_slope`, or no clip.
    """
    values = _check_rows(values)
    slope = theil_sen_slope(times, values.mean(axis=0))
    low, high = _percentiles(_theil_sen(times, _resampled_means(values, resamples, seed)), confidence)
    return slope, low, high


def mean_interval(
    values: np.ndarray, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over clips with a percentile bootstrap.

    Args:
        values: float `[n]`, one number a clip.
        confidence: in (0, 1).
        resamples: bootstrap resamples.
        seed: of the resampling.

    Returns:
        mean, low, high.

    Raises:
        InputError: no clip, or a confidence outside (0, 1).
    """
    column = np.asarray(values, float).reshape(-1, 1)
    return mean_intervals(column, confidence=confidence, resamples=resamples, seed=seed)[0]


def mean_intervals(
    values: np.ndarray, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> list[tuple[float, float, float]]:
    """`mean_interval` of each column of `[n, k]`, from the same resamples of the clips."""
    values = _check_rows(values)
    samples = _resampled_means(values, resamples, seed)
    ends = (_percentiles(column, confidence) for column in samples.T)
    return [(float(mean), low, high) for mean, (low, high) in zip(values.mean(axis=0), ends, strict=True)]


def median_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Median and its distribution-free interval by order statistics (binomial): (median, low, high).

    Args:
        values: `[n]`, n >= 6 for 95 %.
        confidence: at least this much is covered.

    Raises:
        InputError: too few values for any interval of this confidence, or a confidence outside (0, 1).
    """
    values = np.sort(np.asarray(values, float))
    _check_confidence(confidence)
    n = values.size
    # P(the median lies outside the k outermost values on each side) = 2 P(Binomial(n, 1/2) < k).
    tail, k = 0.0, 0
    while k <= n // 2 and 2 * (tail + math.comb(n, k) / 2**n) <= 1 - confidence:
        tail += math.comb(n, k) / 2**n
        k += 1
    if k == 0:
        raise InputError(f"{n} values give no {confidence:.0%} interval of a median: use more")
    return float(np.median(values)), float(values[k - 1]), float(values[n - k])


def seed_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean over training seeds with Student's t interval: (mean, low, high).

    Args:
        values: float `[n]`, one number a seed; n = 1 gives an interval without end.
        confidence: in (0, 1).

    Raises:
        InputError: no seed, a value that is not finite, or a confidence outside (0, 1).
    """
    column = _check_rows(np.asarray(values, float).reshape(-1, 1))[:, 0]
    tail = 0.5 + _check_confidence(confidence) / 2
    mean, n = float(column.mean()), column.size
    if n == 1:
        return mean, -math.inf, math.inf
    half = float(stdtrit(n - 1, tail) * column.std(ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


def paired_ratio_interval(
    values: np.ndarray, reference: np.ndarray, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Geometric mean over seeds of value / reference, seed by seed, with Student's t interval of its log.

    Args:
        values, reference: float `[n]`, positive, the same seeds in the same order.
        confidence: in (0, 1).

    Returns:
        ratio, low, high.

    Raises:
        InputError: as `seed_interval`, numbers that do not pair, or one that is not positive.
    """
    values, reference = np.asarray(values, float), np.asarray(reference, float)
    if values.shape != reference.shape or not (values > 0).all() or not (reference > 0).all():
        raise InputError("a ratio over seeds needs two positive numbers for every seed: compare differences instead")
    mean, low, high = seed_interval(np.log(values / reference), confidence)
    return math.exp(mean), math.exp(low), math.inf if high == math.inf else math.exp(high)


def _theil_sen(times: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Theil-Sen slope of each of `[r, t]` curves."""
    times = np.asarray(times, float)
    if times.ndim != 1 or times.size < 2 or times.size != curves.shape[-1] or np.unique(times).size != times.size:
        raise InputError(f"times has shape {times.shape}: give two or more different times, one for each value")
    first, second = np.triu_indices(times.size, 1)
    run = times[second] - times[first]
    # One curve at a time: all pairs of all resamples together would not fit in memory.
    return np.asarray([np.median((curve[second] - curve[first]) / run) for curve in curves])


def _resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means over clips of bootstrap resamples: `[n, t]` → `[resamples, t]`."""
    counts = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), resamples)
    return counts @ values / len(values)


def _percentiles(samples: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - _check_confidence(confidence)) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def _check_confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}: use a value between 0 and 1, for instance 0.95")
    return confidence


def _check_rows(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 2 or not values.size:
        raise InputError(f"values has shape {values.shape}: give one row for each clip, and one clip or more")
    if not np.isfinite(values).all():
        raise InputError("values holds a number that is not finite: leave out the clips that failed, or mend them")
    return values
