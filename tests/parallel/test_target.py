"""Whose devices a trace is for."""

import jax
import jax.numpy as jnp
from jax._src.mesh import AbstractDevice
from jax.sharding import AbstractMesh, PartitionSpec, use_abstract_mesh

from mpjax.parallel.target import target_device

TPU = AbstractDevice(device_kind="TPU v6 lite", num_cores=1, platform="tpu")


def test_without_a_mesh_it_is_the_default_device():
    assert target_device() == (jax.default_backend(), jax.devices()[0].device_kind)


def test_a_mesh_says_whose_devices_it_has():
    seen = []

    def part(x):
        seen.append(target_device())
        return x

    with use_abstract_mesh(AbstractMesh((4,), ("data",), abstract_device=TPU)):
        assert target_device() == ("tpu", "TPU v6 lite")
        spec = PartitionSpec("data")
        jax.eval_shape(jax.shard_map(part, in_specs=spec, out_specs=spec), jnp.zeros(4))
    assert seen == [("tpu", "TPU v6 lite")]  # inside a part, too
