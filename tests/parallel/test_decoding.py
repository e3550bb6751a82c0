"""The autoencoder's tiles on several devices."""

from tests.fixtures import tiny_vae
from tests.parallel.processes import run


def test_tiles_of_a_shape_are_computed_at_once(tmp_path):
    """On three devices, one of which repeats the second tile, with the bits of one device; one by one under a mesh."""
    found = run("decoding.py", str(tiny_vae.write_folder(tmp_path / "vae")))
    assert found == {
        "same": [True] * 4,
        "one": [[1, 1]] * 4,
        "three": [[3, 3]] * 2,
        "single": [[1, 1]] * 2,
        "tiles_under_a_mesh": [[1] * 4] * 2,
    }
