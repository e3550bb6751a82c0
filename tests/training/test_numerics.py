"""What `--check_numerics` names, where the test knows what it spoiled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Teacher
from mpjax.models.memorypack import Denoiser
from mpjax.training.gradients import Objective
from mpjax.training.numerics import bad_arrays, explain
from mpjax.training.optimizer import Optimizer
from mpjax.training.state import TrainState
from mpjax.training.step import make_train_step
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch
from tests.training.linear_denoiser import LinearDenoiser, batch, parameters


def at_start(params):
    opt_state = Optimizer().transformation(10).init(params)
    return TrainState(
        step=jnp.zeros((), jnp.int32), params=params, ema=params, opt_state=opt_state, carry=(), key=jax.random.key(0)
    )


def steps_of(denoiser, **fields):
    objective = Objective(denoiser=denoiser, forcing=Teacher(), time=TimeDistribution())
    return functools.partial(make_train_step, objective, **fields)


def test_arrays_are_counted_by_path():
    tree = {"a": jnp.ones(3), "b": {"c": jnp.array([1.0, np.nan, np.inf]), "n": jnp.arange(2)}, "d": jnp.array(-np.inf)}
    assert bad_arrays(tree) == {"b/c": 2, "d": 1}


@pytest.mark.parametrize("place", ["batch/reference", "params/head/w", "opt_state/1/0/mu/x_embedder/b"])
def test_an_array_that_goes_in(place):
    state, data = at_start(parameters()), batch([[1, 1]])
    if place.startswith("batch"):
        data = data.replace(reference=data.reference.at[0, 0, 0, 0].set(jnp.nan))
    elif place.startswith("params"):
        state.params["head"]["w"] = state.params["head"]["w"].at[:].set(jnp.inf)
    else:
        state = state.replace(
            opt_state=jax.tree.map_with_path(
                lambda path, x: x * jnp.nan if jax.tree_util.keystr(path, simple=True, separator="/") in place else x,
                state.opt_state,
            )
        )
    said = explain(steps_of(LinearDenoiser()), state, data)
    assert said == f"{place} holds 3 values that are not finite"


def test_a_module_inside_scans_remat_and_gradient():
    """Finite weights that overflow in one projection of a block; all behind it is bad, too."""
    denoiser = Denoiser(tiny_architecture(remat="full", memory=None))
    data = tiny_batch(denoiser.architecture)
    params = perturbed_params(denoiser, data)
    kernel = params["blocks"]["single_blocks"]["proj_mlp"]["kernel"]
    params["blocks"]["single_blocks"]["proj_mlp"]["kernel"] = jnp.sign(kernel) * 3e38
    said = explain(steps_of(denoiser, micro_batches=2), at_start(params), data)
    assert said == "module blocks/single_blocks/proj_mlp makes values that are not finite of finite inputs"


class Root(LinearDenoiser):
    """sqrt at 0: a number, without a derivative."""

    def velocity(self, params, x_t, t, history, condition, memory):
        return super().velocity(params, x_t, t, history, condition, memory) + jnp.sqrt(params["x_embedder"]["b"] * 0)


def test_a_gradient_alone():
    said = explain(steps_of(Root()), at_start(parameters()), batch([[1, 1]]))
    assert said == "every module is finite, but not the gradient of params/x_embedder/b (1 of 2 arrays)"


class Huge(LinearDenoiser):
    """Its error is finite, and the square of it is not."""

    def velocity(self, params, x_t, t, history, condition, memory):
        return super().velocity(params, x_t, t, history, condition, memory) + 1e30


def test_what_did_not_happen_again():
    assert "finite when the update is made again" in explain(
        steps_of(LinearDenoiser()), at_start(parameters()), batch([[1, 1]])
    )
    said = explain(steps_of(Huge()), at_start(parameters()), batch([[1, 1]]))
    assert said == "every module is finite, but not the loss"
