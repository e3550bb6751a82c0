"""The mesh: which device stands where, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.parallel.mesh import AXES, MeshShape, parse_mesh


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh is laid out by."""

    id: int
    process_index: int = 0
    slice_index: int = 0
    platform: str = "cpu"
    device_kind: str = "cpu"


def numbers(shape, devices):
    return np.vectorize(lambda device: device.id)(shape.build(devices).devices)


def test_the_default_mesh_is_one_device():
    assert dict(MeshShape().build().shape) == dict.fromkeys(AXES, 1)


def test_data_0_takes_the_devices_that_are_left():
    assert MeshShape(data=0).build().size == len(jax.devices())
    assert dict(MeshShape(data=0, slices=2, context=2).build([Device(i) for i in range(12)]).shape) == {
        "data": 6,
        "fsdp": 1,
        "context": 2,
        "tensor": 1,
    }


def test_slices_lie_one_behind_the_other_along_data():
    """In whatever order devices are named, those of a slice stay together, and tensor is the innermost axis."""
    devices = [Device(i, process_index=i // 2, slice_index=1 - i // 4) for i in range(8)]
    devices = [devices[i] for i in (7, 0, 5, 2, 1, 4, 3, 6)]
    found = numbers(MeshShape(slices=2, fsdp=2, tensor=2), devices)
    assert found.shape == (2, 2, 1, 2)
    assert [set(part.flat) for part in found] == [{4, 5, 6, 7}, {0, 1, 2, 3}]
    found = numbers(MeshShape(slices=2, data=2, fsdp=2), devices)
    assert [set(part.flat) for part in found] == [{4, 5}, {6, 7}, {0, 1}, {2, 3}]


def test_a_machine_of_one_slice_may_be_cut_into_more():
    devices = [Device(i, process_index=i % 2) for i in range(8)]
    assert [set(part.flat) for part in numbers(MeshShape(slices=2, fsdp=4), devices)] == [{0, 2, 4, 6}, {1, 3, 5, 7}]


@pytest.mark.parametrize("slices", [1, 2, 4])
def test_slices_are_those_of_the_machine(slices):
    devices = [Device(i, slice_index=i // 4, platform="tpu") for i in range(12)]
    with pytest.raises(InputError, match=rf"mesh.slices is {slices}, but the devices are on 3 slices"):
        MeshShape(slices=slices, data=0).build(devices)


@pytest.mark.parametrize("fields", [{"data": 3}, {"tensor": 64}, {"data": 0, "fsdp": 5}, {"slices": 2, "context": 2}])
def test_a_mesh_needs_as_many_devices_as_there_are(fields):
    with pytest.raises(InputError, match=r"mesh \(.*data .* devices, but there are"):
        MeshShape(**fields).build(jax.devices()[:1])


@pytest.mark.parametrize("fields", [{"data": -1}, {"fsdp": 0}, {"tensor": -2}, {"context": 0}, {"slices": 0}])
def test_bad_fields_are_named(fields):
    with pytest.raises(InputError, match=f"^{next(iter(fields))} is "):
        MeshShape(**fields)


def test_a_mesh_in_words():
    assert parse_mesh("context=4,tensor=2") == MeshShape(context=4, tensor=2)
    assert parse_mesh("slices=2,data=0") == MeshShape(slices=2, data=0)


@pytest.mark.parametrize("text", ["", "context", "context=", "context=-1", "model=2", "data=2,data=2", "data=2;fsdp=2"])
def test_other_words_are_refused(text):
    with pytest.raises(InputError, match=r"^mesh is .*: write it as context=2,tensor=2, with names among slices, data"):
        parse_mesh(text)
