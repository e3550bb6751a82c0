"""The table of logical axes: what it refuses, and where it puts every parameter of the network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from mpjax.errors import InputError
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.mesh import AXES
from mpjax.parallel.rules import RULES, batch_sharding, constrain, devices_along, fitting_spec, spec, tree_shardings
from mpjax.parameters import parameter_path
from tests.tiny import tiny_architecture, tiny_batch


def mesh(data=1, fsdp=1, context=1, tensor=1):
    return AbstractMesh((data, fsdp, context, tensor), AXES)


def test_spec_maps_names_to_mesh_axes():
    assert spec(("batch", None, "heads")) == PartitionSpec(("data", "fsdp"), None, "tensor")
    assert spec(("layers", "embed", "mlp")) == PartitionSpec(None, "fsdp", "tensor")
    assert {
        name for target in RULES.values() for name in ([target] if isinstance(target, str) else target or [])
    } <= set(AXES)


@pytest.mark.parametrize(
    ("axes", "said"), [(("embd",), "'embd' is not in"), (("embed", "batch"), "fsdp"), (("mlp", "heads"), "tensor")]
)
def test_unknown_and_colliding_axes_are_refused(axes, said):
    with pytest.raises(InputError, match=said):
        spec(axes)


def boxed(*shape, axes):
    return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), axes)


def test_dimensions_that_do_not_divide_stay_whole():
    tree = {"a": boxed(8, 6, axes=("embed", "mlp")), "b": boxed(7, 6, axes=("embed", "mlp")), "c": jnp.zeros(3)}
    specs = jax.tree.map(lambda s: s.spec, tree_shardings(tree, mesh(fsdp=4, tensor=2)))
    assert specs == {"a": PartitionSpec("fsdp", "tensor"), "b": PartitionSpec(None, "tensor"), "c": PartitionSpec()}


def test_every_matrix_of_the_network_is_split():
    """All widths of the tiny network divide by 2: each kernel takes fsdp, and those of the blocks take tensor."""
    denoiser = Denoiser(tiny_architecture(channels=4))
    batch = tiny_batch(denoiser.architecture)
    shapes = jax.eval_shape(
        denoiser.init, jax.random.key(0), batch.prompts[:, 0], batch.reference, batch.segments[:, 0]
    )
    shardings = tree_shardings(shapes, mesh(fsdp=2, tensor=2))
    for path, sharding in jax.tree.leaves_with_path(shardings):
        name = parameter_path(path)
        if name.endswith("kernel"):
            assert "fsdp" in sharding.spec, name
            split = ("to_q", "to_k", "to_v", "to_out", "to_out_context", "up", "down", "proj_mlp")
            assert ("tensor" in sharding.spec) == (name.split("/")[-2] in split or "single_blocks/proj_out" in name), (
                name
            )
        if "blocks/" in name and name.startswith("blocks"):
            assert sharding.spec[0] is None, name  # the scanned layers stay together


def test_batches_are_split_over_data_and_fsdp():
    sharding = batch_sharding(mesh(data=2, fsdp=2, context=3, tensor=2), 8)
    assert sharding.spec == PartitionSpec(("data", "fsdp")) and sharding.shard_shape((8, 3)) == (2, 3)
    with pytest.raises(InputError, match=r"batch_size is 6: it must be a multiple of the mesh's data · fsdp = 4"):
        batch_sharding(mesh(data=2, fsdp=2, tensor=2), 6)


def test_activations_follow_the_table_where_they_divide():
    sizes = mesh(data=2, fsdp=2, context=4, tensor=2).shape
    assert fitting_spec(("batch", "length", "mlp"), (4, 8, 6), sizes) == PartitionSpec(
        ("data", "fsdp"), "context", "tensor"
    )
    assert fitting_spec(("batch", "length", "mlp"), (2, 6, 5), sizes) == PartitionSpec(None, None, None)


def test_without_a_mesh_nothing_is_constrained():
    x = jnp.zeros((4, 8, 6))
    jaxpr = jax.make_jaxpr(lambda x: constrain(x, ("batch", "length", None)))(x)
    assert not jaxpr.eqns and devices_along("length") == 1
