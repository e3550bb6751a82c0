"""Do two sides compute the same? Their results, array by array."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import Checkpoint, Tensor

# Some gradients are zero but for rounding, as that of a bias of keys without a norm: an array counts as no smaller than
# this share of the others.
LEAST_SHARE = 1e-2


def differences(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> dict[str, float]:
    """By name ‖a − b‖ / max(‖b‖, s √n), n entries, s = `LEAST_SHARE` of the median over arrays of the rms of b.

    NaN and infinities make it NaN or infinite.
    """
    error, size, count = {}, {}, {}
    for name, reference in wanted.items():
        a, b = found[name].astype(np.float64), reference.astype(np.float64)
        with np.errstate(invalid="ignore"):
            error[name], size[name] = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
        count[name] = b.size**0.5
    least = LEAST_SHARE * float(np.median([size[name] / count[name] for name in wanted]))
    tiny = float(np.finfo(np.float64).tiny)
    return {name: error[name] / max(size[name], least * count[name], tiny) for name in wanted}


def check_agreement(path: Path, reference: Path, tolerance: float, sides: str) -> dict[str, float | str]:
    """Compares the arrays of two safetensors files, one at a time.

    Args:
        path, reference: the files.
        tolerance: that `differences` may reach in any array.
        sides: named in the error.

    Returns:
        the array that differs most, as {name, relative_l2, tolerance}.

    Raises:
        InputError: a difference above the tolerance or not finite, or arrays of other names or shapes.
    """
    found, wanted = (Checkpoint.open(place).tensors for place in (path, reference))
    if {name: tensor.shape for name, tensor in found.items()} != {name: t.shape for name, t in wanted.items()}:
        odd = sorted(name for name in {*found, *wanted} if _shape(found, name) != _shape(wanted, name))
        raise InputError(f"{sides} give arrays of other names or shapes ({', '.join(odd[:3])}): they did other jobs")
    errors = differences(_Arrays(found), _Arrays(wanted))
    worst = max(errors, key=lambda name: np.inf if np.isnan(errors[name]) else errors[name])
    if not errors[worst] <= tolerance:
        raise InputError(
            f"{sides} disagree: {worst} differs by {errors[worst]:.2e} of its norm, above {tolerance:.0e}; "
            "their times cannot be compared"
        )
    return {"name": worst, "relative_l2": errors[worst], "tolerance": tolerance}


class _Arrays(Mapping[str, np.ndarray]):
    """Tensors, read when they are asked for."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self._tensors = tensors

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tensors[name].shape if name in tensors else None
