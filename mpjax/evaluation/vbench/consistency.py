"""Consistency of a video with its first frame and from frame to frame (VBench), and with a picture (VBench-I2V).

With unit features f_i and c(a, b) = max(0, a · b):

    consistency = mean over i ≥ 1 of [c(f_{i−1}, f_i) + c(f_0, f_i)] / 2
    I2V         = 0.4 max_i c(picture, f_i) + 0.3 mean_i c(f_{i−1}, f_i) + 0.3 min_i c(f_{i−1}, f_i)

A frozen video has 1 in both: read them beside the dynamic degree.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mpjax.evaluation.metrics.metric import IMAGE, NotComputed, Part, Probe, Value, Want


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """max(0, cos) of rows `[n, d]`, computed in float64."""
    a, b = (np.asarray(each, np.float64) for each in (a, b))
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.maximum(0.0, (a * b).sum(-1) / np.maximum(norms, 1e-12))


def consistency(features: np.ndarray) -> np.ndarray:
    """By frame from the second on, `[n − 1]`, of features `[n, d]`."""
    return (cosine(features[:-1], features[1:]) + cosine(features[:1], features[1:])) / 2


def fidelity(picture: np.ndarray, features: np.ndarray) -> float:
    """I2V's score of features `[n, d]` to a picture's `[1, d]`."""
    conformity, consecutive = cosine(picture, features), cosine(features[:-1], features[1:])
    return float(0.4 * conformity.max() + 0.3 * consecutive.mean() + 0.3 * consecutive.min())


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Consistency:
    """`subject_consistency` with DINO, `background_consistency` with CLIP.

    VBench takes the mean over the frames of all videos, so a video counts by its frames.
    """

    name: str
    probe: Probe
    higher_is_better: bool = True

    def wants(self, part: Part) -> Sequence[Want]:
        """Every frame."""
        if len(part) < 2:
            raise NotComputed("needs two frames")
        return [Want(self.probe, [(i,) for i in range(part.start, part.stop)])]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the features."""
        values = consistency(rows[0])
        return Value(
            value=float(values.mean()),
            values=tuple(values.tolist()),
            at=tuple(range(1, len(part))),
            weight=len(values),
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fidelity:
    """`i2v_subject` with DINO, `i2v_background` with DreamSim: how true a video stays to the picture it began with."""

    name: str
    probe: Probe
    picture_probe: Probe
    higher_is_better: bool = True

    def wants(self, part: Part) -> Sequence[Want]:
        """The picture and every frame."""
        if part.video.image is None:
            raise NotComputed(part.video.no_image)
        if len(part) < 2:
            raise NotComputed("needs two frames")
        frames = [(i,) for i in range(part.start, part.stop)]
        return [Want(self.picture_probe, [(IMAGE,)]), Want(self.probe, frames)]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the features."""
        values = cosine(*rows)
        return Value(value=fidelity(*rows), values=tuple(values.tolist()), at=tuple(range(len(part))))
