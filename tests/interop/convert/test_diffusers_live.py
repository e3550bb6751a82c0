"""Against diffusers itself: it writes what we read, and reads what we write."""

import json

import pytest

from mpjax.interop.convert.exporting import export_run
from mpjax.interop.convert.importing import import_checkpoint
from tests.interop.checkpoints import CONFIG, T2V_LACKS, contents

pytestmark = pytest.mark.parity
ARGUMENTS = {key: value for key, value in CONFIG.items() if not key.startswith("_")}


def quiet(_):
    pass


@pytest.mark.parametrize("dtype, shard", [("float32", "5GB"), ("bfloat16", "200KB")])
def test_diffusers_files_come_back_bit_by_bit_and_load(tmp_path, dtype, shard):
    torch = pytest.importorskip("torch")
    from diffusers import HunyuanVideoFramepackTransformer3DModel as Model

    torch.manual_seed(0)
    model = Model(**ARGUMENTS).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "in", max_shard_size=shard)
    import_checkpoint(tmp_path / "in", tmp_path / "run", say=quiet)
    export_run(tmp_path / "run", tmp_path / "out", say=quiet)
    before, after = contents(tmp_path / "in"), contents(tmp_path / "out")
    assert len(before) > 5 or shard == "5GB"
    assert after.pop("mpjax.json") and after == before
    (tmp_path / "run" / "pytorch.json").unlink()  # as after training: only the tensors are known
    export_run(tmp_path / "run", tmp_path / "ours", say=quiet)
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config == {key: value for key, value in CONFIG.items() if key != "_diffusers_version"}
    loaded = Model.from_pretrained(tmp_path / "ours", torch_dtype=getattr(torch, dtype))
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_text_to_video_checkpoint_of_diffusers_is_read(tmp_path):
    pytest.importorskip("torch")
    from diffusers import HunyuanVideoFramepackTransformer3DModel, HunyuanVideoTransformer3DModel

    lacks = ("has_image_proj", "has_clean_x_embedder", "image_proj_dim")
    model = HunyuanVideoTransformer3DModel(**{k: v for k, v in ARGUMENTS.items() if k not in lacks})
    model.save_pretrained(tmp_path / "in")
    # A text-to-video config does not say how wide image embeddings are; diffusers' default stands.
    import_checkpoint(tmp_path / "in", tmp_path / "run", from_t2v=True, say=quiet)
    export_run(tmp_path / "run", tmp_path / "out", say=quiet)
    loaded = HunyuanVideoFramepackTransformer3DModel.from_pretrained(tmp_path / "out").state_dict()
    known = model.state_dict()
    assert {name for name in loaded if name not in known} == {n for n in loaded if n.startswith(T2V_LACKS)}
    assert all((loaded[name] == tensor).all() for name, tensor in known.items())
