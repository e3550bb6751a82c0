"""A network small enough to differentiate by hand: velocity = w·x + b, with the functions that training calls."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.data.batch import Batch
from mpjax.models.architecture import FramePack
from mpjax.models.framepack import empty_history
from mpjax.models.memory import Memory
from tests.tiny import tiny_architecture

PACK = FramePack(segment_frames=2, history_frames=(1, 0, 0))
SHAPE = (2, 2, 2, 3)  # f, h, w, c of a segment


@dataclasses.dataclass(frozen=True)
class LinearDenoiser:
    """Takes the place of `mpjax.models.memorypack.Denoiser`.

    Attributes:
        calls: grows by one with every evaluation, if given.
    """

    calls: list | None = dataclasses.field(default=None, hash=False, compare=False)

    architecture = tiny_architecture(framepack=PACK, memory=None)

    def start(self, params, prompts, reference, total=0):
        return empty_history(reference, PACK, total), self.init_memory(params, prompts, reference)

    def init_memory(self, params, prompts, reference):
        return Memory(tokens=jnp.zeros((reference.shape[0], 1, 1)), valid=jnp.ones((reference.shape[0], 1), bool))

    def update_memory(self, params, memory, segment):
        return memory

    def condition(self, params, prompts, reference):
        return None

    def velocity(self, params, x_t, t, history, condition, memory):
        if self.calls is not None:
            jax.debug.callback(lambda: self.calls.append(1))
        return params["head"]["w"] * x_t + params["x_embedder"]["b"]


class RecurrentDenoiser(LinearDenoiser):
    """With a memory: ψ_0 = e · mean(reference), ψ' = tanh(a · ψ + c · mean(segment)), read as u · ψ beside history."""

    architecture = tiny_architecture(framepack=PACK)

    def init_memory(self, params, prompts, reference):
        mean = reference.mean((1, 2, 3, 4)) + prompts.sum(1)
        tokens = params["frame_encoder"]["e"] * mean[:, None, None]
        return Memory(tokens=tokens, valid=jnp.ones(tokens.shape[:2], bool))

    def update_memory(self, params, memory, segment):
        mean = segment.mean((1, 2, 3, 4))[:, None, None]
        tokens = jnp.tanh(params["squeeze"]["a"] * memory.tokens + params["memorize"]["c"] * mean)
        return memory.replace(tokens=tokens)

    def velocity(self, params, x_t, t, history, condition, memory):
        past = params["clean_x_embedder"]["h"] * history.frames[:, -1:]
        read = params["head"]["u"] * memory.tokens[:, 0, 0].reshape(-1, 1, 1, 1, 1)
        return super().velocity(params, x_t, t, history, condition, memory) + past + read


def recurrent_parameters(seed=0):
    rng = np.random.default_rng(seed)
    names = {"frame_encoder": "e", "squeeze": "a", "memorize": "c", "clean_x_embedder": "h"}
    params = {room: {name: jnp.asarray(rng.normal(), jnp.float32)} for room, name in names.items()}
    first = parameters(seed)
    return {**params, **first, "head": {**first["head"], "u": jnp.float32(0.7)}}


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "head": {"w": jnp.asarray(rng.normal(size=3), jnp.float32)},
        "x_embedder": {"b": jnp.asarray(rng.normal(size=3), jnp.float32)},
    }


def batch(weight, seed=0):
    rng = np.random.default_rng(seed)
    weight = np.asarray(weight, np.float32)
    return Batch(
        reference=jnp.asarray(rng.normal(size=(len(weight), 1, *SHAPE[1:])), jnp.float32),
        segments=jnp.asarray(rng.normal(size=(*weight.shape, *SHAPE)), jnp.float32),
        prompts=jnp.ones((*weight.shape, 4), jnp.int32),
        weight=jnp.asarray(weight),
    )


def loss_and_gradient(params, data, key, total):
    """The loss over `total` and its gradient in float64, with t and noise of the keys that training uses."""
    w, b = (np.asarray(params[room][name], np.float64) for room, name in (("head", "w"), ("x_embedder", "b")))
    losses, grad_w, grad_b = [], np.zeros(3), np.zeros(3)
    for n in range(data.segments.shape[1]):
        key_t, key_noise, _ = jax.random.split(jax.random.fold_in(key, n), 3)
        x = np.asarray(data.segments[:, n], np.float64)
        t = (1 - np.asarray(jax.random.uniform(key_t, (len(x),)), np.float64))[:, None, None, None, None]
        noise = np.asarray(jax.random.normal(key_noise, x.shape), np.float64)
        x_t = t * x + (1 - t) * noise
        error = w * x_t + b - (x - noise)
        weight = np.asarray(data.weight[:, n], np.float64)[:, None, None, None, None] / total / x[0].size
        losses.append((weight * error**2).sum())
        grad_w += (2 * weight * error * x_t).sum((0, 1, 2, 3))
        grad_b += (2 * weight * error).sum((0, 1, 2, 3))
    return losses, {"head": {"w": grad_w}, "x_embedder": {"b": grad_b}}
