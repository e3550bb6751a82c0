"""A prompt and the first frame → what the network is conditioned on."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mpjax.conditioning.pretrained import PretrainedEncoders, pretrained
from mpjax.conditioning.tokens import encode_prompt
from mpjax.errors import InputError
from mpjax.models.encoders import Condition
from mpjax.weights import Run

# (prompt, first frame uint8 `[H, W, 3]`) → bytes int32 `[l]`, or a `Condition` of one video.
Conditioner = Callable[[str, np.ndarray], Any]


def conditioner_of(run: Run, encoders: Path | None) -> Conditioner:
    """How a run is conditioned: by its own encoders, or by LLaMA, CLIP and SigLIP from a folder.

    Args:
        run: the run.
        encoders: folder of `conditioning.pretrained`, None where the run has its own.

    Raises:
        InputError: the run has encoders of its own and was given others, or has none and was given none.
    """
    built_in = run.model.encoders
    if built_in is not None:
        if encoders is not None:
            raise InputError(f"{run.folder} has encoders of its own: leave --encoders out")
        return functools.partial(_bytes, built_in.prompt_bytes)
    if encoders is None:
        raise InputError(
            f"{run.folder} reads embeddings of LLaMA, CLIP and SigLIP: give --encoders the folder of their weights"
        )
    return functools.partial(_embeddings, run, pretrained(encoders))


def check_text(prompt: object) -> None:
    """What is no string, a caller from Python learns at once.

    Raises:
        InputError: it is none.
    """
    if not isinstance(prompt, str):
        raise InputError(f"prompt is {prompt!r}: give text, or a list of texts, one a segment")


def check_prompt(run: Run, prompt: str) -> None:
    """Before any file is read.

    Raises:
        InputError: the prompt is too long for the run's own encoders. LLaMA's and CLIP's tokenizers cut instead.
    """
    if run.model.encoders is not None:
        encode_prompt(prompt, run.model.encoders.prompt_bytes)


def _bytes(length: int, prompt: str, picture: np.ndarray) -> np.ndarray:
    del picture  # the network encodes its latents
    return encode_prompt(prompt, length)


def _embeddings(run: Run, encoders: PretrainedEncoders, prompt: str, picture: np.ndarray) -> Condition:
    embeddings: dict[str, Any] = encoders.prompt(prompt) | {"image": encoders.image(picture)}
    for name, width in run.model.embedding_widths.items():
        if (found := embeddings[name].shape[-1]) != width:
            raise InputError(
                f"the {name} encoder makes embeddings of width {found}, but {run.folder} reads {width}: "
                "give --encoders those that the network was trained with"
            )
    return Condition(**embeddings)
