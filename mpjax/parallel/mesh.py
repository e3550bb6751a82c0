"""The device mesh, from config fields."""

import dataclasses
import math

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from mpjax.errors import InputError

AXES = ("data", "fsdp", "context", "tensor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """Devices along each axis; the product of all fields is their number.

    Attributes:
        slices: parts of the machine that only the data-centre network joins. The mesh axis `data` goes across them, so
            that nothing but the sum of gradients does.
        data: replicas in a slice, each with its share of the batch; 0 takes all devices that the others leave.
        fsdp: shares of the batch whose parameters are sharded too.
        context: shares of the token sequence.
        tensor: shares of heads and MLP.
    """

    slices: int = 1
    data: int = 1
    fsdp: int = 1
    context: int = 1
    tensor: int = 1

    def __post_init__(self):
        for name in ("slices", *AXES):
            least = 0 if name == "data" else 1
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least {least}")

    def build(self, devices: list | None = None) -> Mesh:
        """The mesh over `devices` (default: all), with the axes `AXES`.

        Raises:
            InputError: the product does not equal the number of devices, or the slices are not those of the machine.
        """
        devices = jax.devices() if devices is None else devices
        if self == ONE_DEVICE:
            devices = devices[:1]  # the default is one device, whatever the machine has
        rest = self.slices * self.fsdp * self.context * self.tensor
        each = (self.data or max(len(devices) // rest, 1), self.fsdp, self.context, self.tensor)
        if self.slices * math.prod(each) != len(devices):
            named = [("slices", self.slices)] * (self.slices > 1) + list(zip(AXES, each, strict=True))
            sizes = " × ".join(f"{name} {size}" for name, size in named)
            needed = self.slices * math.prod(each)
            raise InputError(f"mesh ({sizes}) needs {needed} devices, but there are {len(devices)}: change mesh")
        # Inside a slice, by the wiring; the slices one behind the other along the first axis, `data`.
        parts = [
            mesh_utils.create_device_mesh(each, part, allow_split_physical_axes=True)
            for part in _by_slice(devices, self.slices)
        ]
        return Mesh(np.concatenate(parts), AXES, axis_types=(AxisType.Auto,) * len(AXES))


ONE_DEVICE = MeshShape()


def parse_mesh(text: str) -> MeshShape:
    """`context=2,tensor=2` → the mesh.

    Raises:
        InputError: it names another field than those of `MeshShape`, one twice, or no whole number.
    """
    known = [field.name for field in dataclasses.fields(MeshShape)]
    fields: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in known or name in fields or not value.isdecimal():
            raise InputError(f"mesh is {text!r}: write it as context=2,tensor=2, with names among {', '.join(known)}")
        fields[name] = int(value)
    return MeshShape(**fields)


def _by_slice(devices: list, slices: int) -> list[list]:
    """The devices in `slices` groups of equal size; none of the machine's own slices lies in two groups.

    Devices say which slice they are on where there are several. A machine that is one slice may be cut into more, to
    try a mesh out; processes then stay whole where they can.
    """

    def place(device: jax.Device) -> tuple[int, int, int]:
        return getattr(device, "slice_index", None) or 0, device.process_index, device.id

    if slices == 1 and len({place(device)[0] for device in devices}) == 1:
        return [devices]
    ordered = sorted(devices, key=place)
    size = len(ordered) // slices
    groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    found = [{place(device)[0] for device in group} for group in groups]
    own = len(set().union(*found))
    if own > 1 and (sum(map(len, found)) > own or (slices != own and devices[0].platform == "tpu")):
        raise InputError(f"mesh.slices is {slices}, but the devices are on {own} slices: set mesh.slices={own}")
    return groups
