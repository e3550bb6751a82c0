import platform
from pathlib import Path

import numpy as np
import pytest

from mpjax.data.stored_frames import stored_frames
from tests.evaluation.vbench.golden import golden
from tests.fixtures import vbench_cases

FILES = Path(vbench_cases.__file__).with_name("decoding")
# swscale's code for other processors rounds in its own way.
ROUNDING = 0 if platform.machine() in ("x86_64", "AMD64") else 3


def difference(name, reader):
    frames = np.stack([*stored_frames(FILES / f"{name}.mp4")]).astype(int)
    return np.abs(frames - golden()[f"decoding.{name}.{reader}"])


@pytest.mark.parametrize("name", ["bt709", "unlabelled"])
def test_frames_are_those_of_decord(name):
    assert difference(name, "decord").max() <= ROUNDING


def test_opencv_takes_bt601_for_every_file():
    assert difference("unlabelled", "opencv").max() <= ROUNDING
    assert difference("bt709", "opencv").mean() > 3  # which `docs/evaluation.md` names among the differences
