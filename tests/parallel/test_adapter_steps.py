"""Training an adapter on a mesh: the numbers of one device, and the base spread over all of them."""

import pytest

from tests.parallel.processes import run


@pytest.mark.slow
@pytest.mark.parametrize("block", [None, 4, 16])
def test_an_adapter_on_a_mesh(block):
    """Beside weights as they are, and in 8 bits, with blocks within a device's part and beyond it."""
    rows = run("adapter_steps.py", {"mesh": {"fsdp": 2, "tensor": 2, "context": 2}, "block": block})
    assert rows["losses"] < 1e-5 and rows["moved"] > 1e-3
    assert rows["params"] < 1e-3  # Adam divides round-off of small gradients by their size
    assert rows["base"] < 0.45 and rows["adapter"] < 0.8
