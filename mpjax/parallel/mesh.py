"""The device mesh, from config fields."""

import dataclasses
import math

import jax
from jax.sharding import AxisType, Mesh

from mpjax.errors import InputError

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """Devices along each axis; `data = 0` takes all devices that the others leave.

    Attributes:
        data: replicas, each with its slice of the batch.
        fsdp: slices of the batch whose parameters are sharded too.
        tensor: slices of heads and MLP.
    """

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        for name in AXES:
            least = 0 if name == "data" else 1
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least {least}")

    def build(self, devices: list | None = None) -> Mesh:
        """The mesh over `devices` (default: all).

        Raises:
            InputError: the product does not equal the number of devices.
        """
        devices = jax.devices() if devices is None else devices
        rest = self.fsdp * self.tensor
        shape = (self.data or max(len(devices) // rest, 1), self.fsdp, self.tensor)
        if self == ONE_DEVICE:
            devices = devices[:1]  # the default is one device, whatever the machine has
        if math.prod(shape) != len(devices):
            sizes = " × ".join(f"{name} {size}" for name, size in zip(AXES, shape, strict=True))
            raise InputError(
                f"mesh ({sizes}) needs {math.prod(shape)} devices, but there are {len(devices)}: change mesh"
            )
        return jax.make_mesh(shape, AXES, devices=devices, axis_types=(AxisType.Auto,) * len(AXES))


ONE_DEVICE = MeshShape()
