"""Our side of a comparison (`side` says how it is asked): `python -m benchmarks.side_by_side.ours`."""

from benchmarks.side_by_side import side


def load():
    """Imports JAX and starts its devices."""
    import jax

    from benchmarks.side_by_side import our_jobs

    jax.devices()
    return our_jobs.ready


if __name__ == "__main__":
    side.serve(load)
