"""The autoencoder's tiles on several devices."""

from tests.fixtures import tiny_vae
from tests.parallel.processes import run


def test_tiles_are_dealt_to_all_devices_in_turn(tmp_path):
    """Four tiles to three devices, to the bits of one."""
    found = run("decoding.py", str(tiny_vae.write_folder(tmp_path / "vae")))
    assert found == {"equal": True, "alone": [0, 0, 0, 0], "dealt": [0, 1, 2, 0]}
