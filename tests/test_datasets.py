"""Mixtures of datasets, sizes and hosts, as an experiment opens them."""

import numpy as np
import pytest

from benchmarks.synthetic_records import record, write_dataset
from mpjax import experiment
from mpjax.datasets import open_datasets
from mpjax.errors import InputError

CONFIG = "configs/clips_tiny.py:smoke"
F, C = 3, 8


def latents_of(clip: int, mean: float) -> np.ndarray:
    return np.random.default_rng(clip).normal(mean, 1 + clip % 2, size=(1 + 2 * F, 12, 16, C)).astype(np.float32)


def dataset(folder, mean: float, count: int):
    """Its codec has the statistics of its latents, as `encode` measures them."""
    records = [
        record(i, latents_of(i, mean), segment_frames=F, space_factor=4, caption=f"clip {i}") for i in range(count)
    ]
    cells = np.concatenate([r["latents"].astype(np.float64).reshape(-1, C) for r in records])
    statistics = {"mean": tuple(cells.mean(0).tolist()), "std": tuple(cells.std(0).tolist())}
    options = {"segment_frames": F, "time_factor": 4, "space_factor": 4, **statistics}
    return write_dataset(folder, {"train": records}, **options), cells


def test_a_mixture_has_the_normalisation_of_all_its_latents(tmp_path):
    (one, cells_1), (two, cells_2) = dataset(tmp_path / "1", 0.0, 6), dataset(tmp_path / "2", 5.0, 4)
    mixture = [{"path": str(one.path), "weight": 3.0}, {"path": str(two.path)}]
    loaded = experiment.load(CONFIG, [f"--config.data.mixture={mixture}"])
    opened = open_datasets(loaded)
    weights = np.concatenate([np.full(len(cells_1), 0.75 / len(cells_1)), np.full(len(cells_2), 0.25 / len(cells_2))])
    cells = np.concatenate([cells_1, cells_2])
    mean = (weights[:, None] * cells).sum(0)
    np.testing.assert_allclose(opened.codec.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(opened.codec.std, np.sqrt((weights[:, None] * (cells - mean) ** 2).sum(0)), rtol=1e-9)
    assert opened.validation is None
    size = loaded.training.batch_size
    halves = [range(size // 2), range(size // 2, size)]
    parts = [open_datasets(loaded, rows).train[3] for rows in halves]
    np.testing.assert_array_equal(np.concatenate([p.segments for p in parts]), opened.train[3].segments)


def test_rendered_batches_are_shared_by_hosts_too():
    loaded = experiment.load("configs/recall_tiny.py:smoke")
    whole = open_datasets(loaded).train[2]
    size = loaded.training.batch_size
    halves = [range(size // 2), range(size // 2, size)]
    parts = [open_datasets(loaded, rows).train[2] for rows in halves]
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(np.concatenate([getattr(p, name) for p in parts]), values)


def test_what_does_not_fit_is_refused(tmp_path):
    one, _ = dataset(tmp_path / "1", 0.0, 2)
    path = f"--config.data.path={one.path}"
    with pytest.raises(InputError, match="clips of 48×64, but the config asks for 48×48"):
        open_datasets(experiment.load(CONFIG, [path, "--config.data.width=48"]))
    with pytest.raises(InputError, match=r"several sizes, but model\.encoders read one"):
        experiment.load(CONFIG, ["--config.data.buckets=[(48, 64), (64, 48)]"])
    embeddings = ["--config.data.encoders=somewhere", "--config.model.encoders=None"]
    sizes = [*embeddings, "--config.data.buckets=[(48, 64), (64, 48)]"]
    assert experiment.load(CONFIG, sizes)
    with pytest.raises(InputError, match=r"training\.stages\[1\]\.forcing residual carries latents"):
        experiment.load(CONFIG, [*sizes, "--config.training.stages.1.forcing={'kind': 'residual'}"])
    with pytest.raises(InputError, match="buckets is 50: it must be a multiple of 8"):
        experiment.load(CONFIG, ["--config.data.buckets=[(50, 64)]"])
    for field, message in (("text_dropout=1.0", "text_dropout is 1.0"), ("max_segments=0", "max_segments is 0")):
        with pytest.raises(InputError, match=message):
            experiment.load(CONFIG, [f"--config.data.{field}"])
    with pytest.raises(InputError, match=r"weight is 0\.0: give a positive number"):
        experiment.load(CONFIG, ["--config.data.mixture=[{'path': 'a', 'weight': 0.0}]"])


def test_sixty_seconds_by_default():
    data = experiment.ClipsData(path="a", fps=24)
    assert data.longest(9) == 40 and experiment.ClipsData(path="a", fps=30, max_segments=7).longest(9) == 7
    assert experiment.ClipsData(path="a", fps=30).longest(9) == 50
