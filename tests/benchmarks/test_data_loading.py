import json
import tarfile

import ml_dtypes
import numpy as np
import pytest

from benchmarks import data_loading
from benchmarks.webdataset_reader import checksum
from mpjax import experiment
from mpjax.data.records import EMBEDDINGS

SMOKE = "configs/framepack_f1_13b.py:smoke"


def test_the_command_counts_every_latent_that_it_reads(tmp_path, capsys):
    out = tmp_path / "results" / "a.json"
    arguments = [f"--config={SMOKE}", f"--out={out}", "--clips=6", "--rounds=2", "--epochs=2", "--mfu=0.5"]
    arguments.append("--config.data.width=32")
    assert data_loading.main(arguments) == 0, capsys.readouterr()
    found = json.loads(out.read_text())
    assert found["command"] == "python -m benchmarks.data_loading " + " ".join(arguments)
    loaded = experiment.load(SMOKE, ["--config.data.width=32"])
    runs = found["rounds"]["ArrayRecord, Grain"]
    frames = 1 + loaded.model.framepack.segment_frames * loaded.training.segments
    assert [run["latent_frames"] for run in runs] == [2 * 6 * frames] * 2
    assert len({run["checksum"] for run in runs}) == 1 and all(run["load_before"] >= 0 for run in runs)
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


def test_the_checksum_is_of_each_sample_once_in_any_order():
    rows = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    whole = checksum(rows)
    assert checksum(rows[::-1]) == whole == checksum(rows[:1]) + checksum(rows[1:])
    other = rows.copy()
    other[2, 1, 1] = np.nextafter(other[2, 1, 1], np.float32(9))
    assert whole not in (checksum(rows[:3]), checksum(rows[[0, 1, 2, 2]]), checksum(other))


def test_an_epoch_is_read_as_written(tmp_path):
    dataset = data_loading.synthetic(experiment.load(SMOKE), tmp_path / "records", 4)
    source = dataset.source("train")
    overrides = [f"--config.data.path={dataset.path}"]
    overrides += ["--config.training.batch_size=2", "--config.training.micro_batches=1"]
    loaded = experiment.load(SMOKE, overrides)
    frames = loaded.model.framepack.segment_frames
    wanted = 0
    for record in (source[i] for i in range(4)):
        latents = (record["latents"].astype(np.float32) - 0.5) / 2
        wanted += checksum([latents[1:].reshape(-1, frames, *latents.shape[1:])])
    found = data_loading.read(loaded, 2, 5, 2)
    assert found["checksum"] == wanted and found["latent_frames"] == 10 * len(latents)


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
    assert data_loading.main([f"--config={SMOKE}", "--clips=3"]) == 2
    assert "--clips 3 is no multiple of --batch 2" in capsys.readouterr().err
    assert data_loading.main([f"--config={SMOKE}", "--clips=2", "--rival=false"]) == 2
    assert "WebDataset, DataLoader failed" in capsys.readouterr().err
