"""Weights that leave the device while the codec works, and come back with the same bits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.__main__ import main
from mpjax.conditioning.tokens import encode_prompt
from mpjax.generation.host_weights import HostWeights
from mpjax.generation.rollout import Rollout

PROMPT = encode_prompt("a toy enters", 16)
REFERENCE = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 3)).astype(np.float32)


def test_the_same_bits_come_back_as_often_as_they_are_wanted():
    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(-3, 4, dtype=np.int8)}
    params = jax.tree.map(jnp.asarray, values) | {"c": jnp.arange(5, dtype=jnp.bfloat16)}
    expected = jax.tree.map(np.asarray, params)
    kind = params["a"].sharding.memory_kind
    weights = HostWeights(params)
    for _ in range(2):
        here = weights.here()
        assert here is weights.here()
        assert jax.tree.all(jax.tree.map(lambda x, y: np.asarray(x).tobytes() == y.tobytes(), here, expected))
        assert {x.sharding.memory_kind for x in jax.tree.leaves(here)} == {kind} != {"pinned_host"}
        weights.leave()
        weights.leave()
        assert all(x.is_deleted() for x in jax.tree.leaves(here))
    assert all(x.is_deleted() for x in jax.tree.leaves(params))


def test_a_video_is_the_same_and_the_devices_are_free_while_it_is_decoded(trained, rollout, monkeypatch):
    params = jax.tree.map(jnp.copy, trained.params)
    codec, seen = trained.run.codec, []

    class Watching:
        """The codec, and how many parameters are on the device when it works."""

        def __getattr__(self, name):
            if name in ("decode_stream", "decode_finish"):
                seen.append(sum(not x.is_deleted() for x in jax.tree.leaves(offloaded._host._here)))
            return getattr(codec, name)

    offloaded = Rollout.of(dataclasses.replace(trained, params=params), offload=True)
    offloaded.codec = Watching()
    videos = []
    for one in (rollout, offloaded):
        frames, state = one.start(PROMPT, REFERENCE, seed=3)
        pieces = [frames]
        for _ in range(2):
            frames, state = one.generate(state, PROMPT)
            pieces.append(frames)
        frames, state = one.give(state, np.repeat(REFERENCE, 4, 0))
        one._weights()  # back on the device, where a network that begins at the end has them until `finish`
        pieces += [frames, one.finish(state)]
        videos.append((np.concatenate(pieces), np.asarray(state.video.history.frames)))
    for plain, moved in zip(*videos, strict=True):
        np.testing.assert_array_equal(plain, moved)
    assert len(seen) == 5 and not any(seen)
    assert all(x.is_deleted() for x in jax.tree.leaves(params))
    assert offloaded._sample._cache_size() == 1


def test_the_command_line_offloads_and_the_request_is_the_same(world_run, tmp_path, monkeypatch, capsys):
    left, leave = [], HostWeights.leave
    monkeypatch.setattr(HostWeights, "leave", lambda self: left.append(leave(self)))
    out = tmp_path / "a.mp4"
    command = ["generate", f"--weights={world_run}", "--seconds=1", "--least=1", f"--out={out}"]
    assert main([*command, "--offload"]) == 0 and left
    assert main(command) == 0 and "finished already" in capsys.readouterr().out
