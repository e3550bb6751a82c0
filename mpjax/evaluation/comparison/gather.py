"""Systems side by side: what `evaluate` wrote for each, and how the paper's Table 1 shows it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath

import numpy as np

from mpjax.errors import InputError
from mpjax.evaluation.metrics.metric import Score
from mpjax.evaluation.metrics.pool import pool
from mpjax.evaluation.metrics.score_files import read_scores
from mpjax.evaluation.statistics import mean_interval

TABLE_1 = {
    "Imag": "imaging_quality",
    "Aesth": "aesthetic_quality",
    "Dyn": "dynamic_degree",
    "Smooth": "motion_smoothness",
    "Bg": "background_consistency",
    "Subj": "subject_consistency",
}
"""Columns of the paper's Table 1 (PFVG), × 100."""

TABLE_1_DRIFT = {f"Δ{short}": TABLE_1[short] for short in ("Imag", "Aesth", "Bg", "Subj")}

WON_BY_STANDING_STILL = (
    *("motion_smoothness", "background_consistency", "subject_consistency", "temporal_flickering"),
    *("i2v_subject", "i2v_background", "return_to_start"),
)
"""Metrics that a frozen video wins; variants of VBench-Long count with them."""

STILL = 0.5
"""A system that moves less than this share of the most lively one is marked."""

DEAD = 0.9
"""So is, whatever the others do, one in which nothing moves in this share of the sampled frames or more."""

FAINT = 1e-3
"""And one whose motion energy is less, a second."""


@dataclass(frozen=True, kw_only=True)
class Rating:
    """A system's strength by the votes of a study, in points of Elo's scale.

    Attributes:
        kind: `Bradley-Terry` or `Elo`, the same for all systems: the two do not compare.
        value: the rating.
        ci95: low and high end of its interval; None where an end does not exist.
    """

    kind: str
    value: float
    ci95: tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class System:
    """The scores of one system.

    Attributes:
        name: that of the folder of its scores.
        scores: metric → video → score; only what was computed. A video is named by its file, without the suffix.
        rating: of a study, None without one.
    """

    name: str
    scores: Mapping[str, Mapping[str, Score]]
    rating: Rating | None = None

    def value(self, metric: str) -> float | None:
        """Pooled over videos as VBench pools; None if not computed."""
        rows = pool(self.scores.get(metric, {}).values())
        return rows[0].value if rows else None

    def drift(self, metric: str) -> float | None:
        """Mean Δdrift over the videos that are long enough."""
        rows = pool(self.scores.get(metric, {}).values())
        return rows[0].drift if rows else None

    def motion(self, metric: str, video: str) -> float | None:
        """How much a video moves: the mean of the curve of `metric`."""
        score = self.scores.get(metric, {}).get(video)
        if score is None:
            return None
        return float(np.mean(score.values)) if score.values else score.value

    @property
    def videos(self) -> list[str]:
        """Names of all its videos."""
        return sorted({video for found in self.scores.values() for video in found})

    def path(self, video: str) -> Path:
        """Where a video was when it was evaluated."""
        return Path(next(found[video].video for found in self.scores.values() if video in found))


def read_systems(folders: Sequence[Path], ratings: Path | None = None) -> list[System]:
    """Systems from folders of `evaluate`, in this order.

    Args:
        folders: one a system, named as the systems.
        ratings: `elo.json` of `elo`, with the same names. Bradley-Terry's are taken where every system there has one,
            else everybody's Elo.

    Raises:
        InputError: a folder without scores, names that repeat, or ratings that cannot be read.
    """
    names = [folder.resolve().name for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two folders are called {name}: rename one, for it names the system")
    rated = {} if ratings is None else _ratings(ratings)
    systems = []
    for name, folder in zip(names, folders, strict=True):
        found: dict[str, dict[str, Score]] = {}
        for score in read_scores(folder):
            video = PurePath(score.video).stem
            same = found.setdefault(score.metric, {})
            if video in same and same[video].video != score.video:
                raise InputError(f"{folder}: two videos are called {video}; evaluate them into folders of their own")
            if score.value is not None:
                same[video] = score
        found = {metric: same for metric, same in found.items() if same}
        if not found:
            raise InputError(f"{folder}: no metric was computed; its scores.json says why")
        systems.append(System(name=name, scores=found, rating=rated.get(name)))
    return systems


def metrics_of(systems: Sequence[System]) -> list[str]:
    """Every metric that any system has, in the order of the first that has it."""
    return list({metric: None for system in systems for metric in system.scores})


def motion_metric(systems: Sequence[System]) -> str | None:
    """What tells how much a video moves: dynamic degree where all systems have it, else its stand-in."""
    names = ("dynamic_degree", "motion_energy")
    return next((name for name in names if all(name in system.scores for system in systems)), None)


def stands_still(systems: Sequence[System]) -> dict[str, bool]:
    """Whether a system hardly moves at all, or less than half as much as the most lively one."""
    metric = motion_metric(systems)
    if metric is None:
        return {}
    moves = {}
    for system in systems:
        found = [system.motion(metric, video) for video in system.scores[metric]]
        moves[system.name] = float(np.mean([value for value in found if value is not None]))
    most = max(moves.values())
    return {
        system.name: moves[system.name] < STILL * most or _at_rest(system, metric, moves[system.name])
        for system in systems
    }


def _at_rest(system: System, metric: str, motion: float) -> bool:
    """Whether a system hardly moves at all, without a look at the others."""
    dead = system.value("dead_motion_rate")
    if dead is not None and dead >= DEAD:
        return True
    return system.value(metric) == 0 if metric == "dynamic_degree" else motion < FAINT


def is_won_by_standing_still(metric: str) -> bool:
    """Whether a frozen video has the best value of a metric."""
    return metric.removeprefix("long_").removesuffix("_slow_fast") in WON_BY_STANDING_STILL


def ratings_of(systems: Sequence[System]) -> dict[str, dict | None]:
    """System → its rating as plain JSON."""
    return {system.name: None if system.rating is None else asdict(system.rating) for system in systems}


def rows_of(systems: Sequence[System]) -> list[dict]:
    """A row for each system, metric and duration (None for all): value, its 95 % interval over videos, Δdrift."""
    rows = []
    for system in systems:
        for metric, found in system.scores.items():
            for pooled in pool(found.values()):
                values = [
                    score.value
                    for score in found.values()
                    if score.value is not None and pooled.seconds in (None, round(score.seconds))
                ]
                _, low, high = mean_interval(np.asarray(values))
                rows.append(
                    {
                        "system": system.name,
                        "metric": metric,
                        "seconds": pooled.seconds,
                        "videos": pooled.videos,
                        "value": pooled.value,
                        "ci95": [low, high],
                        "drift": pooled.drift,
                    }
                )
    return rows


def _ratings(path: Path) -> dict[str, Rating]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["systems"]
        key, kind = ("bradley_terry", "Bradley-Terry")
        if any(row[key] is None for row in found):
            key, kind = ("elo", "Elo")
        return {
            row["system"]: Rating(kind=kind, value=float(row[key]), ci95=(row[f"{key}_ci95"][0], row[f"{key}_ci95"][1]))
            for row in found
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path}: no ratings; give the elo.json that `elo` wrote") from error
