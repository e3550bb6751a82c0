"""diffusers itself, at tiny sizes: both sides agree in every case, as it is and compiled."""

import sys

import pytest

from benchmarks.side_by_side import raced
from benchmarks.side_by_side.request import Request
from benchmarks.side_by_side.workload import VaeWorkload
from mpjax.models.vae import VaeArchitecture

pytestmark = pytest.mark.parity
SMOKE = "configs/framepack_f1_13b.py:smoke"
TINY_VAE = VaeWorkload(architecture=VaeArchitecture(widths=(8, 16, 16, 16), layers=1, groups=4), latents=(3, 2, 3))


@pytest.mark.parametrize(
    ("case", "overrides", "variants"),
    [
        ("forward", (), ("eager", "compile")),
        ("forward", ("--config.model.dtype=bfloat16",), ("eager",)),
        ("gradient", ("--config.model.remat=none",), ("eager",)),
        ("gradient", ("--config.model.remat=full",), ("eager",)),
        ("segment", (), ("eager",)),
        ("vae_decode", (), ("eager",)),
        ("vae_encode", (), ("eager",)),
    ],
)
def test_the_sides_agree(monkeypatch, case, overrides, variants):
    pytest.importorskip("diffusers")
    monkeypatch.setattr(raced, "HALF_VAE", TINY_VAE)
    request = Request(rival=sys.executable, variant=variants, config=SMOKE, overrides=overrides, rounds=6, threads=1)
    found = raced.run_race(case, request, print)
    for variant in variants:
        error = found["rounds"][f"diffusers {variant}"]["error"]
        assert found["rounds"][f"diffusers {variant}"]["about"]["threads"] == 1
        assert 0 < error["relative_l2"] < error["tolerance"]
