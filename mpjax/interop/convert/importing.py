"""A PyTorch checkpoint → a run folder.

    run.json        the network, guidance and sampler; codec, fps and size; where the weights come from (`source`)
    checkpoints/0   the weights, an Orbax step like the averaged weights of a training run
    pytorch.json    how the checkpoint was laid out, so that the same files can be written again
    vae/            the VAE's files as they were

A chunk of a layer at a time goes from a mapped file into the next file; nothing is ever whole in memory.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mpjax import codecs, config
from mpjax.diffusion.samplers import UniPC
from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import OWN_FILE, Checkpoint, own_description, transformer_place
from mpjax.interop.convert.exporting import LAYOUT_FILE, copy_files, layout_of, vae_place
from mpjax.interop.convert.output_folder import building, is_finished, write_description
from mpjax.interop.orbax_arrays import write_step
from mpjax.interop.transformer_names import transformer_entries
from mpjax.interop.transformer_tensors import architecture_of, check_tensors, stored_arrays, with_t2v_parts
from mpjax.interop.vae_weights import check_vae_tensors, read_vae_architecture
from mpjax.models.architecture import Architecture
from mpjax.progress import ByteProgress
from mpjax.weights import Network, network_of

Say = Callable[[str], None]

# How FramePack-F1 is run (docs/backbone.md, sections 2.1 and 2.4).
GUIDANCE = 10.0
SAMPLER = UniPC(steps=25, shift=None)
FPS, HEIGHT, WIDTH = 30.0, 480, 832
VAE_CODEC = "hunyuan_vae"


def import_checkpoint(
    source: Path,
    output: Path,
    *,
    vae: Path | None = None,
    dtype: np.dtype | None = None,
    from_t2v: bool = False,
    layout: str | None = None,
    fps: float | None = None,
    height: int | None = None,
    width: int | None = None,
    say: Say = print,
) -> None:
    """Converts a PyTorch checkpoint into a run folder.

    Args:
        source: directory of the transformer's safetensors (diffusers or lllyasviel), one such file, or the directory of
            a diffusers pipeline, with `transformer/` and perhaps `vae/`.
        output: run folder; must not exist, be empty, or hold the result of the same call, which then returns at once.
        vae: directory of the VAE's safetensors, or one such file; None: that of the pipeline, if it has one.
        dtype: of the parameters, float32 or bfloat16; None: as stored.
        from_t2v: initialise what a text-to-video checkpoint lacks (`transformer_tensors.with_t2v_parts`).
        layout: `framepack_f1` or `framepack_f0`, which the weights were trained with and do not tell; None: what an
            export of this package says, else F1.
        fps, height, width: of generated videos; None: what an export of this package says, else FramePack-F1's.
        say: receives one line of progress at a time.

    Raises:
        InputError: the checkpoint does not fit, or `output` holds anything else. Nothing is written then.
    """
    # -- Check -----------------------------------------------------------------------------------------------------
    folder = transformer_place(source)
    checkpoint = Checkpoint.open(folder)
    own = own_description(folder)
    if folder != source and vae is None and (source / "vae").is_dir():
        vae = source / (own["codec"].get("weights", "vae") if own else "vae")
    if own is None:
        network = Network(model=architecture_of(checkpoint), guidance=GUIDANCE, sampler=SAMPLER)
    else:
        network = network_of(own, OWN_FILE)
    entries = transformer_entries(network.model)
    tensors, fresh = with_t2v_parts(checkpoint.tensors, entries) if from_t2v else (checkpoint.tensors, [])
    check_tensors(tensors, entries, folder)
    arrays = stored_arrays(tensors, entries, dtype)
    if layout is not None:
        pack = dataclasses.replace(network.model.framepack, rope_layout=layout)
        network = dataclasses.replace(network, model=dataclasses.replace(network.model, framepack=pack))
    if own is None:  # bfloat16 weights are made to be computed with in bfloat16
        compute = arrays["x_embedder"]["kernel"].dtype.name
        network = dataclasses.replace(network, model=dataclasses.replace(network.model, dtype=compute))
    chosen = {"fps": fps, "height": height, "width": width}
    known = {name: own[name] for name in chosen} if own is not None else {"fps": FPS, "height": HEIGHT, "width": WIDTH}
    size = known | {name: value for name, value in chosen.items() if value is not None}
    codec = _codec(network.model, own, vae, size)
    description = {
        **config.to_dict(network),
        "codec": codec,
        **size,
        "source": {
            "checkpoint": str(source),
            "vae": None if vae is None else str(vae),
            "bytes": {name: (checkpoint.folder / name).stat().st_size for name in checkpoint.files},
            "dtype": None if dtype is None else dtype.name,
            "from_t2v": from_t2v,
        },
    }
    if is_finished(output, description, "run.json"):
        say(f"{output}: finished already")
        return

    # -- Write -----------------------------------------------------------------------------------------------------
    total = sum(array.nbytes for array in jax.tree.leaves(arrays))
    say(f"{source}: {len(checkpoint.tensors)} tensors, {total / 1e6:,.0f} MB of parameters")
    if len(tensors) > len(checkpoint.tensors):
        say(f"{len(tensors) - len(checkpoint.tensors)} tensors that it lacks are initialised from the others")
    if fresh:
        say(f"{len(fresh)} of them begin at random: {', '.join(fresh)}")
    if vae is None and own is None:
        say("no VAE: latents stand for block DCT; give --vae to read and write FramePack-F1's")
    with building(output) as partial:
        if vae is not None:
            copy_files(vae, partial / "vae")
        write_description(partial, layout_of(checkpoint), LAYOUT_FILE)
        write_step(partial / "checkpoints" / "0", arrays, ByteProgress(total, say).add)
        write_description(partial, description, "run.json")
    say(f"{output}: finished")


def _codec(model: Architecture, own: dict[str, Any] | None, vae: Path | None, size: dict[str, Any]) -> dict[str, Any]:
    """The codec as `run.json` names it; checked by building it.

    Raises:
        InputError: its channels or the size of the video do not fit the network.
    """
    if vae is not None:
        check_vae_tensors(vae, read_vae_architecture(vae))
        known = own["codec"] if own and "weights" in own["codec"] else {"name": VAE_CODEC}
        codec = codecs.from_spec(known | {"weights": str(vae)})
        spec = known | {"weights": vae_place(vae)}
    else:
        spec = {"name": "dct", "channels": model.channels} if own is None else own["codec"]
        if "weights" in spec:
            raise InputError(f"{OWN_FILE} names a VAE, but there is none beside the transformer: give --vae")
        codec = codecs.from_spec(spec)
    if codec.channels != model.channels:
        raise InputError(f"the VAE has {codec.channels} latent channels, the transformer {model.channels}: give --vae")
    unit = codec.space_factor * model.patch
    if not size["fps"] > 0:
        raise InputError(f"--fps is {size['fps']}: give a rate above 0")
    for name in ("height", "width"):
        if size[name] < 1 or size[name] % unit:
            raise InputError(f"--{name} is {size[name]}: give a multiple of {unit}")
    return spec
