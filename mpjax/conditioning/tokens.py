"""Prompts as bytes: no vocabulary file, any language, the same everywhere."""

import numpy as np

from mpjax.errors import InputError


def encode_prompt(prompt: str, length: int) -> np.ndarray:
    """UTF-8 bytes of a prompt as int32 `[length]`: byte value + 1, then zeros.

    Raises:
        InputError: the prompt does not fit; nothing is ever cut off silently.
    """
    data = prompt.encode("utf-8")
    if len(data) > length:
        raise InputError(
            f"prompt {prompt[:40]!r} has {len(data)} bytes, but this model reads {length}: "
            "shorten it, or train with a larger model.encoders.prompt_bytes"
        )
    tokens = np.zeros(length, np.int32)
    tokens[: len(data)] = np.frombuffer(data, np.uint8).astype(np.int32) + 1
    return tokens
