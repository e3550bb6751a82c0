"""Which clips are kept: one threshold for each score, and the reason where a clip fails one."""

from collections.abc import Mapping
from dataclasses import dataclass

from mpjax.errors import InputError

# Score -> what it says, in the order in which they are judged.
SCORES = {
    "seconds": "length",
    "enlargement": "scale that covers the bucket, above 1 enlarged",
    "black": "longest black run, in seconds",
    "frozen": "longest run of one repeated picture, in seconds",
    "dynamism": "mean motion of the picture, in short sides a second",
    "camera": "mean motion of the camera, likewise",
    "duplicate": "likeness to a clip kept before, 1 is the same",
    "shots": "shots that the listed range was split into",
}


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Bounds of the scores; None switches one off. Ranges are always split at changes of shot.

    Attributes:
        least_seconds: of a clip.
        most_enlargement: of the picture, to cover its bucket.
        most_black: seconds of black in a row.
        most_frozen: seconds of one picture in a row.
        least_dynamism: mean motion in short sides of the picture a second.
        most_dynamism: likewise; what is above is shaken or torn.
        least_camera: mean motion of the camera, likewise; 0 keeps fixed cameras.
        most_camera: likewise.
        most_duplicate: likeness to a clip kept before; unrelated clips have about 0.5 to 0.7.
        most_shots: shots in the listed range; 1 leaves out every range with a cut.
    """

    least_seconds: float | None = None
    most_enlargement: float | None = 1.3
    most_black: float | None = 0.5
    most_frozen: float | None = 1.0
    least_dynamism: float | None = 0.005
    most_dynamism: float | None = None
    least_camera: float | None = None
    most_camera: float | None = None
    most_duplicate: float | None = 0.92
    most_shots: float | None = None

    def __post_init__(self):
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InputError(f"{name} is {value}: it must be at least 0, or None, which switches it off")

    def reason(self, scores: Mapping[str, float]) -> str:
        """Why a clip of these scores is left out; empty where it is kept."""
        for score in SCORES:
            least, most = getattr(self, f"least_{score}", None), getattr(self, f"most_{score}", None)
            value = scores[score]
            if least is not None and value < least:
                return f"{score} {value:.3g} is below {least:g}"
            if most is not None and value > most:
                return f"{score} {value:.3g} is above {most:g}"
        return ""
