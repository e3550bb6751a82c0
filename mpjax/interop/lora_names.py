"""How LoRA files call the modules that they adapt.

| format | an adapted module | its factors | its scale |
|---|---|---|---|
| `diffusers` | `transformer.transformer_blocks.0.attn.to_q` | `.lora_A.weight`, `.lora_B.weight` | 1, or in metadata |
| `musubi` | `lora_unet_transformer_blocks_0_attn_to_q` | `.lora_down.weight`, `.lora_up.weight` | `.alpha` / rank |
| `hunyuan` | `lora_unet_double_blocks_0_img_attn_qkv` | as `musubi` | as `musubi` |

The second is what musubi-tuner trains on FramePack, the third what it and others train on HunyuanVideo, whose original
code fuses layers that diffusers and this package keep apart. Files mix these words freely (HunyuanVideo's modules with
dots and `lora_A`, `diffusion_model.` in front): all of that is read.
"""

import re

FORMATS = ("diffusers", "musubi", "hunyuan")
FLAT = "lora_unet_"  # in front of a name whose dots are underscores
PREFIXES = ("transformer.", "diffusion_model.")

# Stack of blocks in HunyuanVideo's code → that of diffusers, and the layers of a block: one there is one or more here.
STACKS = {"double_blocks": "transformer_blocks", "single_blocks": "single_transformer_blocks"}
LAYERS: dict[str, dict[str, tuple[str, ...]]] = {
    "double_blocks": {
        "img_mod.linear": ("norm1.linear",),
        "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "img_attn_proj": ("attn.to_out.0",),
        "img_mlp.fc1": ("ff.net.0.proj",),
        "img_mlp.fc2": ("ff.net.2",),
        "txt_mod.linear": ("norm1_context.linear",),
        "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "txt_attn_proj": ("attn.to_add_out",),
        "txt_mlp.fc1": ("ff_context.net.0.proj",),
        "txt_mlp.fc2": ("ff_context.net.2",),
    },
    "single_blocks": {
        "modulation.linear": ("norm.linear",),
        "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        "linear2": ("proj_out",),
    },
}
_ORIGINAL = re.compile(r"(double_blocks|single_blocks)[._](\d+)[._](.+)")
_OURS = re.compile(r"(transformer_blocks|single_transformer_blocks)\.(\d+)\.(.+)")
_FACTOR = re.compile(r"(.+)\.(lora_A\.weight|lora_down\.weight|lora_B\.weight|lora_up\.weight|alpha)")
_PARTS = {"lora_A.weight": "down", "lora_down.weight": "down", "lora_B.weight": "up", "lora_up.weight": "up"}


def part_of(tensor: str) -> tuple[str, str] | None:
    """(name of the module, `down`, `up` or `alpha`) of a tensor's name; None if it is none of LoRA."""
    match = _FACTOR.fullmatch(tensor)
    return None if match is None else (match[1], _PARTS.get(match[2], match[2]))


def members(module: str, known: dict[str, str]) -> tuple[str, ...] | None:
    """diffusers' names of the layers that an adapted module of a file is, in the order of its rows.

    Args:
        module: as the file calls it.
        known: diffusers' names by what they are with underscores for dots.

    Returns:
        one, or for a fused module several; None for an unknown name.
    """
    name = module.removeprefix(FLAT)
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    flat = name.replace(".", "_")
    if match := _ORIGINAL.fullmatch(name):
        stack, layer, rest = match.groups()
        for original, layers in LAYERS[stack].items():
            if rest in (original, original.replace(".", "_")):
                return tuple(f"{STACKS[stack]}.{layer}.{own}" for own in layers)
        return None
    return (known[flat],) if flat in known else None


def groups(names: list[str]) -> dict[str, tuple[str, ...]]:
    """What HunyuanVideo calls the modules of these names, with all the layers that are one there.

    Raises:
        KeyError: a name that is no layer of a block.
    """
    found = {}
    for name in names:
        match = _OURS.fullmatch(name)
        if match is None:
            raise KeyError(name)
        stack = next(theirs for theirs, ours in STACKS.items() if ours == match[1])
        for original, layers in LAYERS[stack].items():
            if match[3] in layers:
                found[f"{stack}.{match[2]}.{original}"] = tuple(f"{match[1]}.{match[2]}.{own}" for own in layers)
                break
        else:
            raise KeyError(name)
    return found


def tensor_names(module: str, form: str) -> dict[str, str]:
    """The tensors of a module, given by its name with dots, in a file of this format."""
    if form == "diffusers":
        return {"down": f"{PREFIXES[0]}{module}.lora_A.weight", "up": f"{PREFIXES[0]}{module}.lora_B.weight"}
    flat = FLAT + module.replace(".", "_")
    return {"down": f"{flat}.lora_down.weight", "up": f"{flat}.lora_up.weight", "alpha": f"{flat}.alpha"}
