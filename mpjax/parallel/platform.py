"""The kind of device that a process runs on, where it is asked for by name."""

import jax

from mpjax.errors import InputError

# As JAX calls them, the first one for arrays; host callbacks need the CPU's.
_BACKENDS = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}


def use(name: str) -> None:
    """Restricts JAX to `cpu`, `gpu` or `tpu`; before it has touched a device or met the other processes."""
    jax.config.update("jax_platforms", _BACKENDS[name])


def check(name: str) -> None:
    """Refuses another kind of device: JAX takes the CPU, without a word, where it finds no GPU.

    Raises:
        InputError: arrays would lie elsewhere.
    """
    try:
        found = jax.default_backend()
    except RuntimeError as error:
        raise InputError(f"--platform={name}, which JAX cannot start: {str(error).splitlines()[0]}") from error
    if found != name:
        raise InputError(
            f"--platform={name}, but JAX finds only {found} devices: install JAX for {name}, and look at its driver"
        )
