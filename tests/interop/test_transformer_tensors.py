from pathlib import Path

import jax
import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import Checkpoint, Tensor
from mpjax.interop.transformer_names import transformer_entries
from mpjax.interop.transformer_tensors import check_tensors, stored_arrays, with_t2v_parts
from tests.fixtures import seeded
from tests.interop.checkpoints import ARCHITECTURE, BF16, T2V_LACKS, tiny_tensors

FOLDER = Path("c")
ENTRIES = transformer_entries(ARCHITECTURE)


def as_tensors(arrays):
    return {n: Tensor(name=n, shape=a.shape, dtype=a.dtype, read=lambda a=a: a) for n, a in arrays.items()}


@pytest.fixture(scope="module")
def tensors():
    return as_tensors(tiny_tensors())


def test_arrays_are_transposed_and_stacked(tensors):
    tree = stored_arrays(tensors, ENTRIES)
    assert len(jax.tree.leaves(tree)) == len(ENTRIES)
    kernel = tree["blocks"]["single_blocks"]["proj_mlp"]["kernel"]
    assert (kernel.shape, kernel.block, kernel.dtype) == ((2, 32, 128), 1, np.float32)
    names = [f"single_transformer_blocks.{layer}.proj_mlp.weight" for layer in (0, 1)]
    whole = np.stack([tensors[name].read().T for name in names])
    np.testing.assert_array_equal(kernel.all(), whole)
    part = (slice(1, 2), slice(3, 9), slice(100, 128))
    np.testing.assert_array_equal(kernel.read(part), whole[part])
    patch = tree["clean_x_embedder"]["proj_2x"]["kernel"].read((slice(5, 8), slice(0, 32)))
    weight = tensors["clean_x_embedder.proj_2x.weight"].read()  # [32, 16, 2, 4, 4]: rows are (c, kt, kh, kw)
    np.testing.assert_array_equal(patch, weight[:, 0, 0, 1, 1:4].T + 0)
    np.testing.assert_array_equal(tree["head"]["proj_out"]["bias"].all(), tensors["proj_out.bias"].read())


def test_types_are_kept_or_chosen(tensors):
    name = "single_transformer_blocks.1.attn.to_q.weight"
    half = dict(tensors) | as_tensors({name: tensors[name].read().astype(BF16)})
    with pytest.raises(InputError, match=r"to_q\.weight is stored as bfloat16, float32: choose --dtype"):
        stored_arrays(half, ENTRIES)
    array = stored_arrays(half, ENTRIES, BF16)["blocks"]["single_blocks"]["qkv"]["to_q"]["kernel"]
    assert array.dtype == array.all().dtype == BF16
    half = dict(tensors) | as_tensors({"proj_out.bias": tensors["proj_out.bias"].read().astype(np.float16)})
    with pytest.raises(InputError, match="stored as float16"):
        stored_arrays(half, ENTRIES)
    np.testing.assert_array_equal(
        stored_arrays(half, ENTRIES, np.dtype(np.float32))["head"]["proj_out"]["bias"].all(),
        half["proj_out.bias"].read().astype(np.float32),
    )


def test_every_mistake_is_named_at_once(tensors):
    wrong = dict(tensors)
    check_tensors(wrong, ENTRIES, FOLDER)
    for layer in (0, 1):
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            del wrong[f"transformer_blocks.{layer}.attn.{name}.weight"]
    wrong |= as_tensors(
        {"lora.weight": np.zeros(2), "proj_out.bias": np.zeros(63), "proj_out.weight": np.zeros((32, 64))}
    )
    with pytest.raises(InputError) as error:
        check_tensors(wrong, ENTRIES, FOLDER)
    text = str(error.value)
    assert text.startswith("c does not fit (8 missing: transformer_blocks.0.attn.norm_k.weight, ")
    assert ".weight and 3 more; 1 not of this network: lora.weight; 2 misshaped: " in text
    assert "proj_out.bias [63] instead of [64]" in text and "proj_out.weight [32, 64] instead of [64, 32]" in text
    assert "--from-t2v" not in text


def test_a_text_to_video_checkpoint_is_told_how(tensors):
    lacking = {name: tensor for name, tensor in tensors.items() if not name.startswith(T2V_LACKS)}
    with pytest.raises(InputError, match=r"10 missing: .*: `convert --from-t2v` initialises them"):
        check_tensors(lacking, ENTRIES, FOLDER)
    del lacking["x_embedder.proj.bias"]
    complete, _ = with_t2v_parts(lacking, ENTRIES)
    with pytest.raises(InputError, match=r"x_embedder\.proj\.bias.*give a checkpoint"):
        check_tensors(complete, ENTRIES, FOLDER)


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BF16])
def test_history_embedders_begin_as_the_noisy_one_seen_enlarged(dtype):
    lacking = as_tensors(tiny_tensors(dtype, without=T2V_LACKS))
    complete, fresh = with_t2v_parts(lacking, ENTRIES)
    check_tensors(complete, ENTRIES, FOLDER)
    assert all(complete[name] is tensor for name, tensor in lacking.items())
    clip = seeded.normal("clip", (16, 1, 2, 2)).astype(np.float64)  # one patch of the noisy latents
    weight = {name: complete[f"clean_x_embedder.{name}.weight"].read().astype(np.float64) for name in PROJECTIONS}
    token = np.einsum("octhw,cthw->o", lacking["x_embedder.proj.weight"].read().astype(np.float64), clip)
    for name, rate in PROJECTIONS.items():
        enlarged = clip.repeat(rate, 1).repeat(rate, 2).repeat(rate, 3)
        np.testing.assert_allclose(np.einsum("octhw,cthw->o", weight[name], enlarged), token, atol=1e-12)
        bias = complete[f"clean_x_embedder.{name}.bias"]
        assert bias.dtype == dtype and (bias.read() == lacking["x_embedder.proj.bias"].read()).all()
    assert sorted(fresh) == [f"image_projection.{n}" for n in ("down.bias", "down.weight", "up.bias", "up.weight")]
    for name in fresh:
        array = complete[name].read()
        assert array.dtype == dtype and array.shape == complete[name].shape
        assert (array == complete[name].read()).all()
        if name.endswith("bias"):
            assert not array.any()
        else:
            assert abs(array.astype(np.float32).std() / np.sqrt(2 / sum(array.shape)) - 1) < 0.05


PROJECTIONS = {"proj": 1, "proj_2x": 2, "proj_4x": 4}


def test_reading_from_a_file_copies_only_the_piece(tmp_path, tensors):
    from tests.interop.checkpoints import write_checkpoint

    checkpoint = Checkpoint.open(write_checkpoint(tmp_path / "c", tiny_tensors()))
    tree = stored_arrays(checkpoint.tensors, ENTRIES)
    array = tree["blocks"]["dual_blocks"]["ff"]["up"]["kernel"]
    np.testing.assert_array_equal(
        array.read((slice(0, 1), slice(0, 2), slice(0, 128))),
        tensors["transformer_blocks.0.ff.net.0.proj.weight"].read()[:, :2].T[None],
    )
