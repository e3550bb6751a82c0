import json
import tarfile

import ml_dtypes
import numpy as np
import pytest

from benchmarks import data_loading
from mpjax import experiment
from mpjax.data.records import EMBEDDINGS

SMOKE = "configs/framepack_f1_13b.py:smoke"


def test_the_command_counts_every_latent_that_it_reads(tmp_path, capsys):
    out = tmp_path / "results" / "a.json"
    arguments = [f"--config={SMOKE}", f"--out={out}", "--clips=6", "--rounds=2", "--mfu=0.5"]
    assert data_loading.main(arguments) == 0, capsys.readouterr()
    found = json.loads(out.read_text())
    assert found["command"] == "python -m benchmarks.data_loading " + " ".join(arguments)
    loaded = experiment.load(SMOKE)
    runs = found["rounds"]["ArrayRecord, Grain"]
    frames = 1 + loaded.model.framepack.segment_frames * loaded.training.segments
    assert [run["latent_frames"] for run in runs] == [6 * frames] * 2
    rate = np.median([run["latent_frames"] / run["seconds"] for run in runs])
    needed = found["consumed_by_one_h200"]
    assert found["headroom"] == {"ArrayRecord, Grain": pytest.approx(rate / needed)}
    assert needed == pytest.approx(data_loading.consumed(loaded, 0.25) * 2)


def test_what_the_13b_consumes():
    """By hand: 9 billion weights, without modulation, take 2 operations a token; context and attention come on top."""
    loaded = experiment.load("configs/framepack_f1_13b.py")
    tokens = 9 * 30 * 52  # of a segment of 480 × 832
    most = 9 * 0.4 * 989e12 / (4 * 2 * 9e9 * tokens)
    assert most / 4 < data_loading.consumed(loaded, 0.4) < most


def test_tars_hold_the_same_arrays(tmp_path):
    dataset = data_loading.synthetic(experiment.load(SMOKE), tmp_path / "records", 4)
    source, seen = dataset.source("train"), 0
    for path in data_loading.as_tars(dataset, tmp_path / "tars"):
        with tarfile.open(path) as tar:
            names = [name for name in tar.getnames() if name.endswith(".json")]
            for name in names:
                shapes = json.load(tar.extractfile(name))
                assert set(shapes) == {"latents", *EMBEDDINGS}
                for part, shape in shapes.items():
                    data = tar.extractfile(name.replace("shapes.json", f"{part}.bf16")).read()
                    array = np.frombuffer(data, ml_dtypes.bfloat16).reshape(shape)
                    np.testing.assert_array_equal(array, source[int(name[:6])][part])
                seen += 1
    assert seen == len(source) == 4


def test_bad_input_is_one_sentence(capsys):
    assert data_loading.main(["--config=configs/clips_tiny.py:smoke"]) == 2
    assert "reads no clips with embeddings" in capsys.readouterr().err
    assert data_loading.main([f"--config={SMOKE}", "--clips=2", "--rival=false"]) == 2
    assert "WebDataset, DataLoader failed" in capsys.readouterr().err
