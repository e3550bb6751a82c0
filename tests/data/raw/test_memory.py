"""Nothing of a video but a few frames is in memory at a time."""

import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

SCAN = """
import re, sys
from pathlib import Path
from mpjax.data.raw.entries import read_entries
from mpjax.data.raw.filters import Filters
from mpjax.data.raw.geometry import Geometry
from mpjax.data.raw.scan import scan
from mpjax.data.raw.shots import ShotDetector
from mpjax.data.video import read_frames

# Not getrusage, whose peak a child has from its parent.
memory = lambda name: int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**10
before, path = memory("VmRSS"), Path(sys.argv[1])
(scanned,) = scan(read_entries(path), geometry=Geometry(), filters=Filters(), shots=ShotDetector())
frames = sum(1 for _ in read_frames(path, fps=5, height=480, width=832))
print(scanned.seconds, frames, len(scanned.clips), memory("VmHWM") - before)
"""


def write_long(path, seconds, fps=5):
    """A bright bar that moves over noise, 1920 × 1080, one frame in memory at a time."""
    noise = np.random.default_rng(0).integers(0, 90, (270, 480), np.uint8).repeat(4, 0).repeat(4, 1)
    planes = np.full((1620, 1920), 128, np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "30", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for n in range(seconds * fps):
            planes[:1080] = noise
            planes[:1080, 8 * n % 1800 : 8 * n % 1800 + 100] = 230
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = n, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("seconds", "most"), [(60, 350), pytest.param(600, 1000, marks=pytest.mark.slow)], ids=["a minute", "ten minutes"]
)
def test_a_long_video_of_1080_rows(tmp_path, seconds, most):
    """Megabytes above what the imports took; the frames of a minute, decoded, are 900 of them."""
    write_long(tmp_path / "a.mp4", seconds)
    done = subprocess.run([sys.executable, "-c", SCAN, tmp_path / "a.mp4"], capture_output=True, text=True, check=True)
    read, frames, clips, megabytes = map(float, done.stdout.split())
    assert read == pytest.approx(seconds, abs=0.1) and frames == pytest.approx(seconds * 5, abs=1) and clips >= 1
    assert 10 < megabytes < most, megabytes
