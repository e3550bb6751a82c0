from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.generation.state import GenerationState, load_state, save_state
from mpjax.models.autoregressive import VideoState
from mpjax.models.framepack import History
from mpjax.models.memory import Memory


def make_state(tokens: int = 3) -> GenerationState:
    rng = np.random.default_rng(0)
    # A transposed view: what lies in memory is not what the array says.
    frames = jnp.asarray(rng.normal(size=(4, 3, 2, 7, 1)).T, jnp.float32)
    return GenerationState(
        video=VideoState(
            history=History(reference=frames[:, :1], frames=frames, segments=jnp.int32(5), total=jnp.int32(9)),
            memory=Memory(
                tokens=jnp.asarray(rng.normal(size=(1, tokens, 6)), jnp.float32),
                valid=jnp.arange(tokens)[None] % 2 == 0,
            ),
        ),
        key=jax.random.key(2**31 + 7),
        segment=jnp.asarray(5, jnp.int32),
        frames=jnp.asarray(19, jnp.int32),
        tail={
            "pending": rng.normal(size=(1, 0, 4, 4, 3)).astype(np.float32),
            "latent_frames": np.asarray(21, np.int64),
        },
        waiting=rng.normal(size=(tokens, 4, 4, 3)).astype(np.float32),
    )


@pytest.mark.parametrize("tokens", [3, 0])  # without SemanticPack there is no token at all
def test_every_bit_comes_back(tmp_path, tokens):
    state = make_state(tokens)
    save_state(tmp_path / "s", state, {"fingerprint": "é", "segment": 5})
    loaded, metadata = load_state(tmp_path / "s")
    assert metadata == {"fingerprint": "é", "segment": 5}
    assert jax.tree.structure(loaded) == jax.tree.structure(state)

    def same(a, b):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))

    jax.tree.map(same, loaded, state)
    a, b = (jax.random.normal(jax.random.fold_in(s.key, 3), (4,)) for s in (state, loaded))
    np.testing.assert_array_equal(a, b)


def test_a_file_is_complete_or_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "s"
    save_state(path, make_state(), {"n": 1})
    before = path.read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, make_state(), {"n": 2})
    assert path.read_bytes() == before


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "s"
    save_state(path, make_state(), {})
    data = path.read_bytes()
    for content in (data[:50], data[:-9], b"", data.replace(b"memory.valid", b"memory.wrong")):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no readable state"):
            load_state(path)
