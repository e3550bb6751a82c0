"""The bank against lists, and what error recycling takes out of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.forcing import ErrorRecycling
from mpjax.errors import InputError
from tests.diffusion.forcing.cases import NOISE, SHAPE, X_T, T, V, X, assert_detached, context, f64, wide

FILLED = ErrorRecycling(size=3, intervals=2, probability=1.0, input_probability=1.0)
RESIDUALS = jnp.arange(1.0, 7.0).reshape(2, 3, 1, 1, 1, 1) * jnp.ones(SHAPE[1:])  # 1, 2, 3 at low t; 4, 5, 6 at high


def filled(written=(3, 3)):
    bank = FILLED.init((2, 3, *SHAPE[1:]))
    return bank.replace(residuals=RESIDUALS, written=jnp.asarray(written, jnp.int32))


def test_the_rings_are_lists_of_the_last(size=3, intervals=4):
    """Random batches, some larger than a ring, some videos not kept."""
    rng = np.random.default_rng(0)
    bank = ErrorRecycling(size=size, intervals=intervals).init((1, 1, 1, 1, 1, 1))
    put = jax.jit(lambda bank, *arrays: bank.put(*arrays))
    lists = [[] for _ in range(intervals)]
    for number in range(20):
        batch = int(rng.choice([1, 7]))
        interval, keep = rng.integers(0, 2 if number < 8 else intervals, batch), rng.random(batch) < 0.7
        values = rng.normal(size=(batch, 1, 1, 1, 1)).astype(np.float32)
        bank = put(bank, jnp.asarray(values), jnp.asarray(interval), jnp.asarray(keep))
        for value, ring, kept in zip(values.ravel(), interval, keep, strict=True):
            if kept:
                lists[ring].append(value)
        for ring, want in enumerate(lists):
            got = np.asarray(bank.residuals[ring]).ravel()
            assert int(bank.written[ring]) == len(want)
            assert sorted(got) == sorted(([0.0] * size + want)[-size:])
            if want:
                assert got[(len(want) - 1) % size] == want[-1]


def test_draws_come_evenly_from_what_a_ring_holds():
    bank = filled((2, 0)).replace(residuals=RESIDUALS.at[1].set(0.0))
    drawn = np.asarray(bank.draw(jax.random.key(0), jnp.array([0] * 300 + [1] * 10)))[:, 0, 0, 0, 0]
    counts = {value: int((drawn[:300] == value).sum()) for value in (1.0, 2.0)}
    assert sum(counts.values()) == 300 and min(counts.values()) > 110
    assert (drawn[300:] == 0).all()


def test_history_is_the_truth_and_a_residual_of_the_bank():
    many = jnp.broadcast_to(X[:1], (300, *SHAPE[1:]))
    ctx = context(starts=[False] * 300, denoise=None)
    segment, _ = ErrorRecycling(size=3, intervals=2, probability=0.4).history(
        filled(), ctx, many, many, many, jnp.full(300, 0.5)
    )
    added = f64(segment) - f64(many)
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1, :1, :1], added.shape), atol=1e-5)
    values, counts = np.unique(added[:, 0, 0, 0, 0].round(3), return_counts=True)
    assert list(values) == [0, 1, 2, 3, 4, 5, 6]
    assert 0.5 < counts[0] / 300 < 0.7 and counts[1:].min() > 5


def test_inputs_take_an_error_of_their_own_t_and_lead_back():
    t = jnp.array([0.2, 0.8])
    x_t, target = FILLED.inputs(filled(), context(), X, t, NOISE)
    error = (f64(x_t) - (1 - wide(t)) * f64(NOISE)) / wide(t) - f64(X)
    np.testing.assert_allclose(error, np.broadcast_to(error.mean((1, 2, 3, 4), keepdims=True), SHAPE), atol=1e-5)
    low, high = error.mean((1, 2, 3, 4))
    assert round(low) in (1, 2, 3) and round(high) in (4, 5, 6)
    np.testing.assert_allclose(f64(x_t) + (1 - wide(t)) * f64(target), f64(X), atol=1e-5)
    plain = ErrorRecycling(size=3, intervals=2).inputs(filled(), context(), X, t, NOISE)
    np.testing.assert_allclose(plain[1], f64(X) - f64(NOISE), atol=1e-6)


def test_every_loss_leaves_its_residual_and_an_empty_bank_is_teacher_forcing():
    empty = FILLED.init((2, 3, *SHAPE[1:]))
    np.testing.assert_array_equal(FILLED.history(empty, context(), X, X_T, V, T)[0], X)
    np.testing.assert_allclose(FILLED.inputs(empty, context(), X, T, NOISE)[1], f64(X) - f64(NOISE), atol=1e-6)
    residual = f64(X_T) + (1 - wide(T)) * f64(V) - f64(X)
    _, bank = FILLED.history(empty, context(), X, X_T, V, T)  # t = 0.2 and 0.95
    np.testing.assert_array_equal(bank.written, [1, 1])
    np.testing.assert_allclose(bank.residuals[:, 0], residual, atol=1e-6)
    _, bank = FILLED.history(empty, context(trained=[False, True]), X, X_T, V, jnp.array([0.2, 1.0]))
    np.testing.assert_array_equal(bank.written, [0, 1])
    assert FILLED.forwards_per_segment == 1


def test_no_gradient_follows():
    assert_detached(FILLED, filled())


@pytest.mark.parametrize(
    "fields",
    [{"size": 0}, {"intervals": 0}, {"probability": 2.0}, {"input_probability": -1.0}, {"floor": 0.0}],
)
def test_bad_fields_are_named(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        ErrorRecycling(**fields)
