import json
from pathlib import Path

import pytest

from mpjax.errors import InputError
from mpjax.interop.transformer_config import from_config, from_shapes, to_config
from mpjax.interop.transformer_names import transformer_entries
from mpjax.models.architecture import Architecture
from tests.interop.checkpoints import ARCHITECTURE, CONFIG

PATH = Path("config.json")
FULL = Architecture(memory=None, encoders=None)


def test_a_config_becomes_an_architecture_and_comes_back():
    assert from_config(CONFIG, PATH) == ARCHITECTURE
    written = json.loads(to_config(ARCHITECTURE))
    assert written == {key: value for key, value in CONFIG.items() if key != "_diffusers_version"}
    assert to_config(ARCHITECTURE).startswith('{\n  "_class_name": ')


def test_absent_keys_have_diffusers_defaults_which_are_the_13b():
    assert from_config({}, PATH) == FULL


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("_class_name", "WanTransformer3DModel", "_class_name is 'WanTransformer3DModel'"),
        ("patch_size_t", 2, "patch_size_t is 2, but only 1"),
        ("qk_norm", "layer_norm", "qk_norm is 'layer_norm'"),
        ("image_condition_type", "token_replace", "image_condition_type is 'token_replace'"),
        ("out_channels", 32, "out_channels is 32"),
        ("num_layers", "20", "num_layers is '20': it must be of the kind of 20"),
        ("guidance_embeds", 1, "guidance_embeds is 1"),
        ("rope_axes_dim", [4, 12], r"rope_axes_dim is \[4, 12\]"),
        ("rope_theta", None, "rope_theta is None"),
        ("added_kv_proj_dim", 5120, "added_kv_proj_dim = 5120 is not known"),
        ("num_layers", 0, "config.json: dual_blocks is 0"),
    ],
)
def test_what_the_network_cannot_do_is_named(key, value, message):
    with pytest.raises(InputError, match=message):
        from_config(CONFIG | {key: value}, PATH)


def test_shapes_tell_the_network_where_they_can():
    wide = {"heads": 1, "head_dim": 128, "rope_axes": (16, 56, 56), "dual_blocks": 1, "single_blocks": 3}
    architecture = Architecture(
        **wide, text_width=24, pooled_width=20, image_width=28, guidance_embeds=False, memory=None, encoders=None
    )
    shapes = {name: entry.shape for entry in transformer_entries(architecture) for name in entry.names}
    assert from_shapes(shapes, Path("c")) == architecture
    tiny = {name: entry.shape for entry in transformer_entries(ARCHITECTURE) for name in entry.names}
    with pytest.raises(InputError, match="do not tell rope_axes_dim"):
        from_shapes(tiny, Path("c"))
    del shapes["x_embedder.proj.weight"]
    with pytest.raises(InputError, match=r"neither config.json nor x_embedder.proj.weight"):
        from_shapes(shapes, Path("c"))
