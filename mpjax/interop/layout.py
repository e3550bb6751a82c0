"""How one array of a parameter tree is stored in a PyTorch checkpoint.

A stack of layers (`nn.scan`) is one array here and one tensor a layer there. The kinds of array differ in their axes:

| kind | here | there |
|---|---|---|
| `same` | any | as it is |
| `linear` | `[in, out]` | `[out, in]` |
| `patch` | `[c·kt·kh·kw, out]` | `[out, c, kt, kh, kw]`, a convolution whose stride is its kernel |
| `conv` | `[kt, kh, kw, in, out]` | `[out, in, kt, kh, kw]` |
"""

import dataclasses
import math
from typing import Literal

import numpy as np

Kind = Literal["same", "linear", "patch", "conv"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One array of the parameter tree.

    Attributes:
        path: its place in the tree.
        names: the tensors that hold it: one, or one a layer where `stacked`.
        shape: of each of these tensors.
        kind: see the table above.
        stacked: the array has a leading axis of layers.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    shape: tuple[int, ...]
    kind: Kind
    stacked: bool = False

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """Shape of the array here, without the axis of layers."""
        if self.kind == "linear":
            return self.shape[::-1]
        if self.kind == "patch":
            return (math.prod(self.shape[1:]), self.shape[0])
        if self.kind == "conv":
            return (*self.shape[2:], self.shape[1], self.shape[0])
        return self.shape

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Shape of the array here."""
        return (len(self.names), *self.layer_shape) if self.stacked else self.layer_shape

    def to_array(self, tensor: np.ndarray) -> np.ndarray:
        """A tensor of a checkpoint as this array, or as one layer of it; a view where the axes allow it."""
        if self.kind == "linear":
            return tensor.T
        if self.kind == "patch":
            return tensor.reshape(tensor.shape[0], -1).T
        if self.kind == "conv":
            return tensor.transpose(2, 3, 4, 1, 0)
        return tensor

    def to_tensor(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_array`, for one layer."""
        if self.kind == "linear":
            return array.T
        if self.kind == "patch":
            return array.T.reshape(self.shape)
        if self.kind == "conv":
            return array.transpose(4, 3, 0, 1, 2)
        return array
