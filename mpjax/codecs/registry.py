"""Codecs by name: a dataset and a checkpoint name theirs in JSON."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from mpjax.codecs.base import Codec
from mpjax.codecs.dct import DctCodec
from mpjax.codecs.hunyuan_vae import HunyuanVaeCodec
from mpjax.codecs.identity import IdentityCodec
from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import Checkpoint, sampled_hash

CODECS: dict[str, type[Any]] = {"dct": DctCodec, "hunyuan_vae": HunyuanVaeCodec, "identity": IdentityCodec}


def create(name: str, **options: Any) -> Codec:
    """A codec by name.

    Args:
        name: a key of `CODECS`.
        **options: fields of the codec's dataclass.

    Raises:
        InputError: an unknown name, an option the codec does not have, or a value it refuses.
    """
    if name not in CODECS:
        raise InputError(f"codec.name is {name!r}; known codecs: {', '.join(sorted(CODECS))}")
    known = [field.name for field in dataclasses.fields(CODECS[name])]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"codec {name!r} has no option {unknown[0]!r}; it has {', '.join(known)}")
    # JSON has lists where the frozen dataclasses hold tuples.
    return CODECS[name](**{key: tuple(value) if isinstance(value, list) else value for key, value in options.items()})


def from_spec(spec: dict[str, Any]) -> Codec:
    """The codec that `spec()` described.

    Raises:
        InputError: the spec has no name, or `create` refuses it.
    """
    if "name" not in spec:
        raise InputError(f"a codec spec needs a 'name' field; known codecs: {', '.join(sorted(CODECS))}")
    return create(**spec)


def codec_id(codec: Codec) -> str:
    """Names what a codec does by content: codecs of one id give the same raw latents, and decode them alike.

    Weights count by their bytes, not by where they lie; the normalisation does not count.

    Raises:
        InputError: the weights cannot be read.
    """
    spec = {key: value for key, value in codec.spec().items() if key not in ("mean", "std")}
    if "weights" in spec:
        checkpoint = Checkpoint.open(Path(spec["weights"]))
        spec["weights"] = sampled_hash(tuple(checkpoint.folder / name for name in checkpoint.files))
    return f"{codec.name}-{hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]}"
