import platform
from pathlib import Path

import numpy as np
import pytest

from mpjax.data.stored_frames import stored_frames
from tests.evaluation.vbench.golden import golden
from tests.fixtures import make_decoding, vbench_cases

FILES = Path(vbench_cases.__file__).with_name("decoding")
# swscale's code for other processors rounds in its own way.
ROUNDING = 0 if platform.machine() in ("x86_64", "AMD64") else 3


def difference(name, reader, signed=False):
    frames = np.stack([*stored_frames(FILES / f"{name}.mp4")]).astype(int)
    off = frames - golden()[f"decoding.{name}.{reader}"]
    return off if signed else np.abs(off)


@pytest.mark.parametrize("name", ["bt709", "unlabelled", "unlabelled_hd", "turned"])
def test_frames_are_those_of_decord(name):
    assert difference(name, "decord").max() <= ROUNDING


@pytest.mark.parametrize("name", ["odd", "ten_bit"])
def test_other_samples_have_decords_brightness_but_not_its_fine_colour(name):
    assert 1 < difference(name, "decord").mean() < 10  # of strong colours a few pixels wide, in `docs/evaluation.md`
    assert np.abs(difference(name, "decord", signed=True) @ [0.299, 0.587, 0.114]).mean() < 0.5


def test_square_pixels_are_made_here_and_not_by_decord():
    frames = np.stack([*stored_frames(FILES / "anamorphic.mp4")]).astype(float)
    stored = golden()["decoding.anamorphic.decord"]
    assert frames.shape == (3, 48, 128, 3) and stored.shape == (3, 48, 64, 3)
    pairs = frames.reshape(3, 48, 64, 2, 3).mean(3)
    assert np.abs(pairs - stored).mean() < 10 < np.abs(pairs[:, :, ::-1] - stored).mean()


def test_the_script_makes_the_files(tmp_path):
    make_decoding.main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in FILES.iterdir()}
    for path in FILES.iterdir():
        made, kept = (np.stack([*stored_frames(folder / path.name)]).astype(float) for folder in (tmp_path, FILES))
        assert np.abs(made - kept).mean() < 2, path.name  # another build of the encoder may choose otherwise


def test_opencv_takes_bt601_for_every_file():
    assert difference("unlabelled", "opencv").max() <= ROUNDING
    assert difference("bt709", "opencv").mean() > 3  # which `docs/evaluation.md` names among the differences
