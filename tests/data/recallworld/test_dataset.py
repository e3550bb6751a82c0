import json

import numpy as np
import pytest

from mpjax.data.recallworld.clips import clip_seed, sample_clip, sidecar
from mpjax.data.recallworld.dataset import open_clips, write_clips
from mpjax.data.recallworld.render import render
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError


@pytest.mark.parametrize(("scene", "dtype"), [("R3", "uint8"), ("D1", "float32")])
def test_what_was_written_is_read_back(scene, dtype, tmp_path):
    world = World(scene=scene)
    folder = write_clips(tmp_path / "set", world, {"train": 3, "validation": 2}, segments=5, seed=9, dtype=dtype)
    for split, count in (("train", 3), ("validation", 2)):
        source = open_clips(folder, split)
        assert len(source) == count
        for index in range(count):
            clip = sample_clip(world, clip_seed(seed=9, split=split, step=0, index=index), 5)
            record, video = source[index], render(world, [clip])[0]
            assert record["id"] == f"{split}-{index:08d}" and record["frames"].dtype == np.dtype(dtype)
            if dtype == "float32":
                np.testing.assert_array_equal(record["frames"], video)
            else:
                np.testing.assert_allclose(record["frames"] / 127.5 - 1, video, atol=0.5 / 127.5 + 1e-6)
            np.testing.assert_array_equal(record["visible"], clip.visible)
            np.testing.assert_array_equal(record["positions"], clip.positions)
            np.testing.assert_array_equal(record["sprites"], clip.sprites)
            assert record["sidecar"] == json.loads(json.dumps(sidecar(clip)))
    described = json.loads((folder / "recallworld.json").read_text())
    assert described["world"]["scene"] == scene and described["counts"] == {"train": 3, "validation": 2}


def test_wrong_input_is_named(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for changes, named in (
        ({"dtype": "int8"}, "dtype"),
        ({"counts": {"test": 1}}, "counts"),
        ({"counts": {}}, "counts"),
        ({"segments": 1}, "segments"),
        ({"gap": 9}, "gap"),
        ({"directory": tmp_path / "full"}, "not an empty folder"),
    ):
        fields = {"directory": tmp_path / "new", "world": World(), "counts": {"train": 1}, "segments": 4, **changes}
        with pytest.raises(InputError, match=named):
            write_clips(**fields)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="no finished"):
        open_clips(tmp_path / "full", "train")
