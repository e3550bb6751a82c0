"""The complete state of a generation, and its file: save it, kill the process, load it, and the bits agree."""

import json
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mpjax.codecs import Tail
from mpjax.errors import InputError
from mpjax.models.autoregressive import VideoState
from mpjax.models.framepack import History
from mpjax.models.memory import Memory
from mpjax.whole_files import write_file


@flax.struct.dataclass
class GenerationState:
    """All that the rest of a video depends on besides weights and prompts. Its size grows with the video only
    where that is generated from its end.

    Attributes:
        video: history and memory, batch 1.
        key: the video's random key; segment n draws its noise from `fold_in(key, n)`.
        segment: segments passed, given or generated, int32 scalar.
        frames: pixel frames the codec has made final, int32 scalar; those in the tail come after them.
        tail: the codec's decoding stream, numpy arrays.
        waiting: latents of a video that is generated from its end, in its order, float32 `[n, h, w, c]`; others have
            none waiting.
    """

    video: VideoState
    key: jax.Array
    segment: jax.Array
    frames: jax.Array
    tail: Tail
    waiting: np.ndarray


def save_state(path: Path, state: GenerationState, metadata: dict[str, Any]) -> None:
    """Writes one safetensors file, at once when it is complete; `metadata` is anything JSON holds."""
    history, memory = state.video.history, state.video.memory
    tensors = {
        **{f"history.{name}": getattr(history, name) for name in History.__annotations__},
        **{f"memory.{name}": getattr(memory, name) for name in Memory.__annotations__},
        "key": jax.random.key_data(state.key),
        "segment": state.segment,
        "frames": state.frames,
        "waiting": state.waiting,
        **{f"tail.{name}": array for name, array in state.tail.items()},
    }
    # np.array: safetensors writes the buffer as it lies, so it must be contiguous.
    host = {name: np.array(jax.device_get(tensor), order="C") for name, tensor in tensors.items()}
    write_file(path, save(host, {"mpjax": json.dumps(metadata)}))


def load_state(path: Path) -> tuple[GenerationState, dict[str, Any]]:
    """Reads what `save_state` wrote.

    Raises:
        InputError: the file is damaged or none of `save_state`'s.
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = json.loads(file.metadata()["mpjax"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the file is no dict)
        video = VideoState(
            history=History(**{name: jnp.asarray(tensors[f"history.{name}"]) for name in History.__annotations__}),
            memory=Memory(**{name: jnp.asarray(tensors[f"memory.{name}"]) for name in Memory.__annotations__}),
        )
        state = GenerationState(
            video=video,
            key=jax.random.wrap_key_data(jnp.asarray(tensors["key"])),
            segment=jnp.asarray(tensors["segment"]),
            frames=jnp.asarray(tensors["frames"]),
            waiting=tensors["waiting"],
            tail={name.removeprefix("tail."): value for name, value in tensors.items() if name.startswith("tail.")},
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no readable state of a generation: delete its folder to start again") from error
    return state, metadata
