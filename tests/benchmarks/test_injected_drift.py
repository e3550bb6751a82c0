import numpy as np
import pytest

from benchmarks.injected_drift import FAULTS, READINGS, ranked_rightly, table


def clip(seed, count=32):
    """A texture that moves over another one, with grain."""
    rng = np.random.default_rng(seed)
    back = np.kron(rng.integers(50, 150, (12, 16, 3)), np.ones((8, 8, 1))) + rng.integers(0, 30, (96, 128, 3))
    frames = []
    for i in range(count):
        frame = back.copy()
        frame[30:60, 3 * i : 3 * i + 30] = rng.permutation(3)[0] * 20 + 100
        frames.append(np.uint8(np.clip(frame, 0, 255)))
    return np.stack(frames)


CLIPS = [clip(0), clip(1)]


@pytest.fixture(scope="module")
def shares():
    return ranked_rightly(CLIPS)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_should_see_a_fault_sees_it(shares, fault):
    for reading in FAULTS[fault][1]:
        assert shares[fault][reading] == 1, reading


def test_what_cannot_see_a_fault_does_not(shares):
    assert shares["freeze"]["Δwarmth"] < 1 and shares["colour cast"]["dead motion rate"] == 0
    assert shares["gain"]["dead motion rate"] == 0 and shares["freeze"]["−temporal flickering"] == 0
    assert shares["identity swap"]["Δsharpness"] < 1


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_what_they_say(fault):
    change = FAULTS[fault][0]
    frames, other = CLIPS
    np.testing.assert_array_equal(change(frames, other, 0.0), frames)
    changed = change(frames, other, 1.0)
    assert changed.shape == frames.shape and changed.dtype == np.uint8
    np.testing.assert_array_equal(changed[0], frames[0])  # a drift: nothing is wrong at the start
    assert (changed[-1] != frames[-1]).any()
    if fault == "gain":
        np.testing.assert_allclose(changed[-1], 0.4 * frames[-1], atol=0.51)
    if fault == "identity swap":
        inner = (slice(14, 82), slice(19, 109))
        np.testing.assert_array_equal(changed[-1][inner], other[-1][inner])
        np.testing.assert_array_equal(changed[-1][:14], frames[-1][:14])


def test_the_table_names_every_reading_and_marks_what_should_see():
    shares = {fault: {reading.name: 0.6 for reading in READINGS} for fault in FAULTS}
    shares["blur"]["Δsharpness"] = 0.8
    shares["gain"]["Δtint"] = 0.1
    lines = table(shares).splitlines()
    assert len(lines) == 2 + len(READINGS)
    assert "**sees 80 %**" in next(line for line in lines if line.startswith("| Δsharpness |"))
    assert next(line for line in lines if line.startswith("| Δtint |")).split(" | ")[1] == "misses 10 %"
    assert (
        sum(line.count("**partly 60 %**") for line in lines)
        == sum(len(expected) for _, expected in FAULTS.values()) - 1
    )
