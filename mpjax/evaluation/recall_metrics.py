"""Does the right toy come back? From decoded identities, the truth and the gap of each clip.

One row is one clip: the identity decoded from all frames of its return (`decode_visit`), so that rows are independent
and Wilson's interval holds. Every result is plain JSON.
"""

from collections.abc import Callable

import numpy as np

from mpjax.errors import InputError
from mpjax.evaluation.statistics import bonferroni_confidence, wilson_interval


def proportion(hits: np.ndarray) -> dict:
    """Rate of a bool `[n]` with its Wilson interval: {n, rate, ci95}; without a row both are None."""
    hits = np.asarray(hits, bool)
    if not hits.size:
        return {"n": 0, "rate": None, "ci95": None}
    interval = wilson_interval(int(hits.sum()), hits.size)
    return {"n": hits.size, "rate": float(hits.mean()), "ci95": list(interval)}


def recall_by_gap(
    decoded: np.ndarray, truth: np.ndarray, gaps: np.ndarray, *, ids: int, beyond_reach: Callable[[int], bool]
) -> list[dict]:
    """Recall at each gap, in ascending order.

    Args:
        decoded: identity of the toy that came back, int `[n]`.
        truth: identity of the toy that should have, int `[n]`.
        gaps: hidden segments before the return, int `[n]`.
        ids: number of identities K.
        beyond_reach: gap → whether FramePack sees nothing of the toy any more.

    Returns:
        One {gap, n, rate, ci95, chance, beyond_reach} per gap; chance is 1 / K.

    Raises:
        InputError: the rows do not match.
    """
    correct, gaps = _rows(decoded, truth, gaps)
    return [
        {
            "gap": int(gap),
            **proportion(correct[gaps == gap]),
            "chance": 1 / ids,
            "beyond_reach": bool(beyond_reach(int(gap))),
        }
        for gap in np.unique(gaps)
    ]


def leak_test(
    decoded: np.ndarray,
    truth: np.ndarray,
    gaps: np.ndarray,
    *,
    ids: int,
    beyond_reach: Callable[[int], bool],
    confidence: float = 0.95,
) -> dict:
    """Whether a model without memory is at chance beyond its reach; if not, its context code leaks.

    Passes if the pooled interval over all gaps beyond reach holds 1 / K and each gap's interval does at the confidence
    corrected for their number (Bonferroni).

    Args:
        decoded, truth, gaps, ids, beyond_reach: as for `recall_by_gap`.
        confidence: of the pooled interval and of all gaps together.

    Returns:
        {passed, chance, pooled: {n, rate, ci}, gaps: [{gap, n, rate, ci, contains_chance}]}, where `ci` is at the
        confidence of that test. With no row beyond reach `passed` is None.

    Raises:
        InputError: the rows do not match, or a confidence outside (0, 1).
    """
    correct, gaps = _rows(decoded, truth, gaps)
    beyond = [int(gap) for gap in np.unique(gaps) if beyond_reach(int(gap))]
    chance = 1 / ids
    each = bonferroni_confidence(confidence, max(1, len(beyond)))
    pooled = _interval_test(correct[np.isin(gaps, beyond)], chance, confidence)
    per_gap = [{"gap": gap, **_interval_test(correct[gaps == gap], chance, each)} for gap in beyond]
    passed = all(test["contains_chance"] for test in (pooled, *per_gap)) if beyond else None
    return {"passed": passed, "chance": chance, "confidence": confidence, "pooled": pooled, "gaps": per_gap}


def attribute_accuracy(decoded: np.ndarray, truth: np.ndarray, *, colours: int, shapes: int) -> dict:
    """Colour and shape apart: {colour: {n, rate, ci95, chance}, shape: {…}}.

    Args:
        decoded, truth: identities, int `[n]`; identity = colour · shapes + shape.
        colours, shapes: how many there are.

    Raises:
        InputError: the rows do not match.
    """
    decoded, truth = _equal_rows(decoded, truth)
    colour = proportion(decoded // shapes == truth // shapes)
    shape = proportion(decoded % shapes == truth % shapes)
    return {"colour": {**colour, "chance": 1 / colours}, "shape": {**shape, "chance": 1 / shapes}}


def hallucination_rate(residual: np.ndarray, threshold: float) -> dict:
    """How often what came back is no toy at all: {n, rate, ci95, threshold}.

    Args:
        residual: mean squared difference to the best toy, `[n]`.
        threshold: above it a return counts as a hallucination.
    """
    return {**proportion(np.asarray(residual) > threshold), "threshold": float(threshold)}


def slot_swap_rate(decoded: np.ndarray, truth: np.ndarray, other: np.ndarray) -> dict:
    """R2: how often the other toy of the clip came back, and how often one of the two did.

    Args:
        decoded, truth, other: identities, int `[n]`: what came back, what was asked for, the toy not asked for.

    Returns:
        {swap: {n, rate, ci95}, either: {n, rate, ci95}}. A memory without order has swap = either / 2.

    Raises:
        InputError: the rows do not match.
    """
    decoded, truth = _equal_rows(decoded, truth)
    decoded, other = _equal_rows(decoded, other)
    return {
        "swap": proportion(decoded == other),
        "either": proportion((decoded == truth) | (decoded == other)),
    }


def recall_half_life(correct: np.ndarray, gaps: np.ndarray, *, chance: float) -> float | None:
    """Gap at which recall has fallen halfway from 1 to chance.

    Maximum likelihood of p(g) = chance + (1 - chance) / (1 + (g / g_half)^β), logistic in log g, over a grid of g_half
    (1 % apart, from a quarter of the smallest gap to four times the largest) and β in .1..20. Gap 0 has no logarithm
    and is left out.

    Args:
        correct: bool `[n]`.
        gaps: hidden segments, int `[n]`.
        chance: 1 / K.

    Returns:
        g_half in segments, where a value at either end of the grid is a bound; None when recall does not fall: fewer
        than two gaps, or a curve that explains the rows no better than a constant (likelihood ratio below 3.84, the
        95 % point of chi-square with one degree of freedom).

    Raises:
        InputError: the rows do not match.
    """
    correct, gaps = _equal_rows(np.asarray(correct, bool), gaps)
    correct, gaps = correct[gaps > 0], gaps[gaps > 0]
    levels, index = np.unique(gaps, return_inverse=True)
    if levels.size < 2:
        return None
    trials = np.bincount(index)
    hits = np.bincount(index, weights=correct)
    log_gap = np.log(levels)
    log_half = np.arange(log_gap[0] - np.log(4), log_gap[-1] + np.log(4), 0.01)
    beta = np.geomspace(0.1, 20, 120)
    fall = 1 / (1 + np.exp(np.clip(beta[:, None, None] * (log_gap - log_half[:, None]), -50, 50)))
    curves = _log_likelihood(chance + (1 - chance) * fall, hits, trials)
    flat = _log_likelihood(np.full(levels.shape, hits.sum() / trials.sum()), hits, trials)
    best = np.unravel_index(curves.argmax(), curves.shape)
    if 2 * (curves[best] - flat) < 3.84:
        return None
    return float(np.exp(log_half[best[1]]))


def recall_report(
    decoded: np.ndarray,
    truth: np.ndarray,
    gaps: np.ndarray,
    *,
    colours: int,
    shapes: int,
    beyond_reach: Callable[[int], bool],
    residual: np.ndarray,
    hallucination_threshold: float,
    other: np.ndarray | None = None,
) -> dict:
    """Everything above for one model, as plain JSON.

    Args:
        decoded, truth, gaps, beyond_reach: as for `recall_by_gap`.
        colours, shapes: how many there are; K is their product.
        residual, hallucination_threshold: as for `hallucination_rate`.
        other: R2: the toy not asked for, int `[n]`.

    Returns:
        {gaps, beyond_reach: {n, rate, ci95, chance}, leak_test, attributes, hallucination, half_life, slots}; `slots`
        is None without `other`. Attributes are those of the gaps beyond reach.

    Raises:
        InputError: the rows do not match.
    """
    ids = colours * shapes
    correct, gaps = _rows(decoded, truth, gaps)
    decoded, truth = np.asarray(decoded), np.asarray(truth)
    _equal_rows(decoded, residual)
    far = np.asarray([beyond_reach(int(gap)) for gap in gaps], bool)
    return {
        "gaps": recall_by_gap(decoded, truth, gaps, ids=ids, beyond_reach=beyond_reach),
        "beyond_reach": {**proportion(correct[far]), "chance": 1 / ids},
        "leak_test": leak_test(decoded, truth, gaps, ids=ids, beyond_reach=beyond_reach),
        "attributes": attribute_accuracy(decoded[far], truth[far], colours=colours, shapes=shapes),
        "hallucination": hallucination_rate(residual, hallucination_threshold),
        "half_life": recall_half_life(correct, gaps, chance=1 / ids),
        "slots": None if other is None else slot_swap_rate(decoded, truth, other),
    }


def _interval_test(correct: np.ndarray, chance: float, confidence: float) -> dict:
    if not correct.size:
        return {"n": 0, "rate": None, "ci": None, "contains_chance": None}
    low, high = wilson_interval(int(correct.sum()), correct.size, confidence)
    rate = float(correct.mean())
    return {"n": correct.size, "rate": rate, "ci": [low, high], "contains_chance": low <= chance <= high}


def _log_likelihood(rate: np.ndarray, hits: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Binomial log likelihood over the last axis, without the constant."""
    rate = np.clip(rate, 1e-12, 1 - 1e-12)
    return (hits * np.log(rate) + (trials - hits) * np.log1p(-rate)).sum(axis=-1)


def _equal_rows(first, second) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first), np.asarray(second)
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(f"rows of shape {first.shape} and {second.shape} do not match: give one value for each clip")
    return first, second


def _rows(decoded, truth, gaps) -> tuple[np.ndarray, np.ndarray]:
    """correct, gaps."""
    decoded, truth = _equal_rows(decoded, truth)
    return _equal_rows(decoded == truth, gaps)
