"""Strengths of systems from pairwise votes.

All ratings are on Elo's scale, on which a lead of d means an expected share of votes

    p(d) = 1 / (1 + 10^(-d / 400)),                                                                   (1)

a tie counting as half a vote for each side.

Sequential Elo (Elo 1978) moves both ratings after each vote by K times the surprise, ±K (s − p(d)): simple, what papers
report, and dependent on the order of the votes. Bradley and Terry (1952) is the maximum-likelihood fit of (1) to all
votes together, free of order; its maximum exists exactly when every system can be reached from every other along votes
that were won or tied (Ford 1957).

Intervals are percentiles of a bootstrap that draws whole clusters of votes with replacement, since the votes of one
rater, or on one video, are not independent.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mpjax.errors import InputError
from mpjax.evaluation.statistics import RESAMPLES

K_FACTOR = 32.0
START = 1500.0
"""The mean of all ratings."""

_SCALE = 400 / math.log(10)  # Elo points of one unit of log-odds
_NEWTON_STEPS = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Votes:
    """Votes in the order in which they were cast.

    Attributes:
        first, second: int `[n]`, the systems that were compared, 0..systems − 1, different in every vote.
        score: float `[n]`, 1 where the first won, 0 where the second did, 0.5 for a tie.
        cluster: int `[n]`, 0.., votes that a resample draws together.
        systems: how many there are.
    """

    first: np.ndarray
    second: np.ndarray
    score: np.ndarray
    cluster: np.ndarray
    systems: int

    def __post_init__(self):
        if self.first.size == 0:
            raise InputError("there are no votes: collect some before rating")
        if (self.first == self.second).any():
            raise InputError("a vote compares a system with itself: leave it out")

    def wins(self) -> np.ndarray:
        """Float `[clusters, systems, systems]`: how often row beat column, ties as halves."""
        counts = np.zeros((int(self.cluster.max()) + 1, self.systems, self.systems))
        np.add.at(counts, (self.cluster, self.first, self.second), self.score)
        np.add.at(counts, (self.cluster, self.second, self.first), 1 - self.score)
        return counts


def expected_share(lead: float) -> float:
    """Equation (1): the share of votes that a lead in Elo points predicts."""
    return 1 / (1 + 10 ** (-lead / 400))


def lead_of_share(share: float) -> float:
    """Inverse of `expected_share`; a share in (0, 1)."""
    return 400 * math.log10(share / (1 - share))


def votes_needed(lead: float, *, confidence: float = 0.95, power: float = 0.5) -> int:
    """Independent votes between two systems until a lead can be told from a coin.

    The share of n votes is taken as normal. With `power` 0.5 the half width of its interval equals the distance of the
    expected share from one half: half of all such studies would then find the lead. Ties count as votes.

    Args:
        lead: Elo points, not 0.
        confidence: of the two-sided test, in (0, 1).
        power: the chance that a study of this size finds the lead, in (0, 1).

    Raises:
        InputError: a lead of 0, which no number of votes shows, or a chance outside (0, 1).
    """
    if lead == 0 or not math.isfinite(lead):
        raise InputError(f"a lead of {lead:g} points takes no finite number of votes: give another")
    if not (0 < confidence < 1 and 0 < power < 1):
        raise InputError(f"confidence {confidence:g} and power {power:g}: use values between 0 and 1")
    normal, share = NormalDist(), expected_share(lead)
    spread = normal.inv_cdf(0.5 + confidence / 2) * 0.5 + normal.inv_cdf(power) * math.sqrt(share * (1 - share))
    return math.ceil((spread / (share - 0.5)) ** 2)


def sequential_elo(first: np.ndarray, second: np.ndarray, score: np.ndarray, systems: int) -> np.ndarray:
    """Elo ratings after the votes, K = 32, all from 1500.

    Args:
        first, second: int `[..., n]`; −1 in `first` is no vote.
        score: float `[..., n]`.
        systems: how many.

    Returns:
        float64 `[..., systems]`, of mean 1500.
    """
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    score = np.atleast_2d(score)
    rows = np.arange(len(first))
    ratings = np.full((len(first), systems), START)
    for one, other, won in zip(first.T, second.T, score.T, strict=True):
        surprise = won - 1 / (1 + 10 ** ((ratings[rows, other] - ratings[rows, one]) / 400))
        step = K_FACTOR * np.where(one < 0, 0.0, surprise)
        ratings[rows, one] += step
        ratings[rows, other] -= step
    return ratings


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Maximum-likelihood ratings.

    Args:
        wins: float `[..., systems, systems]`, how often row beat column.

    Returns:
        float64 `[..., systems]` of mean 1500; NaN where the likelihood has no maximum, because some systems won all
        their votes against the others, or never met them.
    """
    systems = wins.shape[-1]
    fits = _all_reachable(wins)
    # Where there is no maximum any votes will do: the result is thrown away.
    wins = np.where(fits[..., None, None], wins, 1.0)
    games = wins + wins.swapaxes(-1, -2)
    strength = np.zeros(wins.shape[:-1])
    for _ in range(_NEWTON_STEPS):
        share = 1 / (1 + np.exp(strength[..., None, :] - strength[..., None]))
        gradient = (wins - games * share).sum(-1)
        weight = games * share * (1 - share)
        weight *= 1 - np.eye(systems)
        # The likelihood only sees differences: adding a constant to the matrix picks the step of mean 0.
        curvature = weight.sum(-1)[..., None] * np.eye(systems) - weight + 1 / systems
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        longest = np.abs(step).max(-1, keepdims=True)
        # Far from the maximum, where the likelihood is flat, a whole Newton step may overshoot.
        strength = strength + step / np.maximum(1.0, longest)
        if longest.max() < 1e-12:
            break
    ratings = START + _SCALE * (strength - strength.mean(-1, keepdims=True))
    return np.where(fits[..., None], ratings, np.nan)


def _all_reachable(wins: np.ndarray) -> np.ndarray:
    """Whether every system can be reached from every other along wins: bool `[...]`."""
    systems = wins.shape[-1]
    reach = (wins > 0) | np.eye(systems, dtype=bool)
    for _ in range(systems.bit_length()):  # each product doubles the length of the paths
        reach = reach @ reach
    return np.asarray(reach.all((-1, -2)))


def bradley_terry_samples(votes: Votes, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Bradley-Terry ratings of bootstrap resamples: float64 `[resamples, systems]`, NaN where there is no maximum."""
    wins = votes.wins()
    return bradley_terry(np.tensordot(_cluster_counts(len(wins), resamples, seed), wins, 1))


def elo_samples(votes: Votes, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Sequential Elo of bootstrap resamples, each in an order of its own: float64 `[resamples, systems]`."""
    counts = _cluster_counts(int(votes.cluster.max()) + 1, resamples, seed)
    order = np.random.default_rng((seed, 1))
    drawn = [order.permutation(np.repeat(np.arange(votes.first.size), row[votes.cluster])) for row in counts]
    places = np.full((resamples, max(map(len, drawn))), -1)
    for row, found in zip(places, drawn, strict=True):
        row[: found.size] = found
    first = np.where(places < 0, -1, votes.first[places])
    return sequential_elo(first, votes.second[places], votes.score[places], votes.systems)


def percentile_interval(samples: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Percentiles of a bootstrap; a sample without a value (NaN) counts as beyond both ends.

    Args:
        samples: float `[resamples]`.
        confidence: in (0, 1).

    Returns:
        low, high: infinite where too many samples have no value.
    """
    tail = (1 - confidence) / 2
    absent = np.isnan(samples)
    low = np.quantile(np.where(absent, -np.inf, samples), tail, method="lower")
    high = np.quantile(np.where(absent, np.inf, samples), 1 - tail, method="higher")
    return float(low), float(high)


def _cluster_counts(clusters: int, resamples: int, seed: int) -> np.ndarray:
    """How often each resample draws each cluster: int `[resamples, clusters]`."""
    return np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), resamples)
