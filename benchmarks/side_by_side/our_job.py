"""A program of ours that is compiled and ready to be timed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

Program = Callable[..., Any]
ToFile = Callable[[Any], dict[str, np.ndarray]]


class Job:
    """A jitted program on its arguments; implements `side.Ready`."""

    def __init__(self, program: Program, arguments: tuple[Any, ...], dtype: str, to_file: ToFile):
        """Compiles at once.

        Args:
            program: of arrays.
            arguments: on the device.
            dtype: of the matrix product that measures the device.
            to_file: the result as arrays under the rival's names.
        """
        self._device = jax.devices()[0]
        # Without this, an accelerator would multiply float32 in fewer bits, which torch does not.
        exact = self._device.platform != "cpu" and dtype == "float32"
        with jax.default_matmul_precision("highest" if exact else None):
            self._run = jax.jit(program).lower(*arguments).compile()
        self._arguments, self._to_file = arguments, to_file
        n = 2048 if self._device.platform == "cpu" else 8192
        self._square = jnp.full((n, n), 0.5, dtype)
        self._multiply = jax.jit(jnp.matmul).lower(self._square, self._square).compile()

    @property
    def about(self) -> dict[str, Any]:
        """See `side.Ready`."""
        return {"device": self._device.device_kind, "versions": {"jax": jax.__version__}}

    def run(self) -> None:
        """See `side.Ready`."""
        jax.block_until_ready(self._run(*self._arguments))

    def write(self, path: str) -> None:
        """See `side.Ready`."""
        save_file(self._to_file(self._run(*self._arguments)), path)

    def multiply(self) -> int:
        """See `side.Ready`."""
        self._multiply(self._square, self._square).block_until_ready()
        return 2 * self._square.shape[0] ** 3

    def device_bytes(self) -> int | None:
        """See `side.Ready`."""
        return (self._device.memory_stats() or {}).get("peak_bytes_in_use")
