"""One clip of each scene as one picture, a row a scene; the figure of docs/recallworld.md.

python -m mpjax.data.recallworld.picture docs/images/recallworld.png
"""

import sys
from pathlib import Path

import numpy as np

from mpjax.data.filmstrip import filmstrip, png
from mpjax.data.recallworld.clips import sample_clip
from mpjax.data.recallworld.render import render
from mpjax.data.recallworld.world import World

SEGMENTS = 5
ROWS = (
    (World(scene="R1", frame_size=16), 2),
    (World(scene="R2", frame_size=16, prompt_bytes=22), 2),
    (World(scene="R3", frame_size=16), 1),
    (World(scene="R4", frame_size=16), 1),
    (World(scene="R5", frame_size=16, patch=8), 2),
    (World(scene="R6", frame_size=16, patch=8), 2),
    (World(scene="D1", frame_size=16, balls=2, stripe=True), None),
    (World(scene="D1", frame_size=16, turn=0.2), None),
    (World(scene="D2", frame_size=16), None),
)
"""The world of each row, and the gap before its return."""


def picture(seed: int = 0) -> np.ndarray:
    """Every frame of one clip a scene, uint8 `[height, width, 3]`: the reference frame, then five segments of four."""
    clips = [(world, sample_clip(world, seed, SEGMENTS, gap)) for world, gap in ROWS]
    return filmstrip([render(world, [clip])[0] for world, clip in clips], gap=4)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(png(picture(seed=11)))
