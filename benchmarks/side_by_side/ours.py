"""Our side of a comparison (`side` says how it is asked): `python -m benchmarks.side_by_side.ours`."""

from collections.abc import Callable
from typing import Any

from benchmarks.side_by_side import side


def load() -> Callable[[dict[str, Any]], side.Ready]:
    """Imports JAX and starts its devices."""
    import jax

    from benchmarks.side_by_side import our_network, our_vae

    cases: dict[str, Callable[[dict[str, Any]], side.Ready]] = {
        "forward": our_network.forward,
        "gradient": our_network.gradient,
        "segment": our_network.segment,
        "vae_decode": our_vae.decode,
        "vae_encode": our_vae.encode,
    }
    jax.devices()
    return lambda job: cases[job["case"]](job)


if __name__ == "__main__":
    side.serve(load)
