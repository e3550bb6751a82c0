"""How far results differ, by hand, and that nothing that is not finite agrees."""

import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.side_by_side.agreement import LEAST_SHARE, check_agreement, differences
from mpjax.errors import InputError


def test_a_difference_is_relative_to_the_norm():
    found = differences({"a": np.array([3.0, 4.05])}, {"a": np.array([3.0, 4.0])})
    assert found == {"a": pytest.approx(0.01, rel=1e-12)}


def test_an_array_that_is_zero_but_for_rounding_counts_as_a_share_of_the_others():
    ones = np.ones(4)
    found = differences(
        {"a": ones, "b": 2 * ones, "rounding": np.array([1e-7] * 9)},
        {"a": ones, "b": ones, "rounding": np.array([-1e-7] * 9)},
    )
    assert found == {"a": 0.0, "b": 1.0, "rounding": pytest.approx(2e-7 / LEAST_SHARE)}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_agrees_with_nothing(tmp_path, bad):
    for name, value in (("a", bad), ("b", 1.0)):
        save_file({"x": np.array([1.0, value]), "y": np.ones(2)}, tmp_path / name)
    for pair in (("a", "b"), ("b", "a"), ("a", "a")):
        with pytest.raises(InputError, match=r"disagree: x differs by (nan|inf)"):
            check_agreement(*(tmp_path / name for name in pair), 1e9, "two")


def test_the_worst_array_is_reported(tmp_path):
    save_file({"x": np.ones(3), "y": np.array([2.0])}, tmp_path / "a")
    save_file({"x": np.ones(3), "y": np.array([2.002])}, tmp_path / "b")
    found = check_agreement(tmp_path / "b", tmp_path / "a", 2e-3, "two")
    assert found == {"name": "y", "relative_l2": pytest.approx(1e-3, rel=1e-9), "tolerance": 2e-3}
    with pytest.raises(InputError, match=r"two disagree: y differs by 1\.00e-03 of its norm, above 5e-04"):
        check_agreement(tmp_path / "b", tmp_path / "a", 5e-4, "two")
    save_file({"x": np.ones(2), "y": np.array([2.0])}, tmp_path / "b")
    with pytest.raises(InputError, match=r"other names or shapes \(x\)"):
        check_agreement(tmp_path / "b", tmp_path / "a", 1.0, "two")
