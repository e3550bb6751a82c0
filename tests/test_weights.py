import json
import shutil

import jax
import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.weights import latest_step, load_run, read_run
from tests.generation.runs import add_checkpoint, recallworld_experiment, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with checkpoints 2 and 11, and the weights of each."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    experiment = recallworld_experiment()
    write_run(folder, experiment)
    return folder, add_checkpoint(folder, experiment, 11)


def listing(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_newest_weights_come_back_exactly_and_the_folder_stays_as_it_is(run):
    folder, newest = run
    before = listing(folder)
    loaded = load_run(folder)
    assert loaded.step == 11
    assert jax.tree.structure(loaded.params) == jax.tree.structure(newest)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, newest)
    assert {tuple(leaf.devices()) for leaf in jax.tree.leaves(loaded.params)} == {(jax.devices()[0],)}
    older, step = load_run(folder, 2).params, load_run(folder, 2).step
    assert step == 2
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(older), jax.tree.leaves(newest), strict=True))
    assert listing(folder) == before


def test_a_checkpoint_that_a_crash_cut_short_is_none(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    (folder / "checkpoints" / "12").mkdir()
    (folder / "checkpoints" / "13.orbax-checkpoint-tmp-0").mkdir()
    before = listing(folder)
    assert latest_step(folder) == 11 and load_run(folder).step == 11
    assert listing(folder) == before


def test_the_description_is_read_whole(run):
    described = read_run(run[0])
    assert described.experiment == recallworld_experiment()
    assert (described.fps, described.height, described.width, described.codec.name) == (4.0, 8, 8, "identity")


def test_what_is_no_run_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="no run folder"):
        read_run(tmp_path)
    for folder in (tmp_path / "alone", tmp_path / "pipeline"):  # of diffusers
        place = folder if folder.name == "alone" else folder / "transformer"
        place.mkdir(parents=True)
        (place / "model.safetensors").touch()
        with pytest.raises(InputError, match=f"convert it first, `python -m mpjax convert --input={folder} --output"):
            read_run(folder)
    with pytest.raises(InputError, match="holds no checkpoints"):
        latest_step(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="no finished checkpoint"):
        latest_step(tmp_path)
    stored = json.loads((run[0] / "run.json").read_text())
    for text in ("{", "[]", json.dumps({k: v for k, v in stored.items() if k != "codec"})):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(InputError, match="damaged"):
            read_run(tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_weights_of_another_network_are_refused(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    described = json.loads((folder / "run.json").read_text())
    for field, value in (("pooled_width", 16), ("guidance_embeds", True)):
        model = described["experiment"]["model"] | {field: value}
        changed = described | {"experiment": described["experiment"] | {"model": model}}
        (folder / "run.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match="the weights of update 11 are not those of its network"):
            load_run(folder)
