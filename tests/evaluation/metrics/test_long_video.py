"""The verb `evaluate` on a 720p file, in a process of its own whose memory is read from the kernel."""

import re
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.evaluation.test_evaluate_command import scores

EVALUATE = """
import re, sys
from mpjax.__main__ import main
assert main(["evaluate", *sys.argv[1:]]) == 0
print("peak", re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
FPS = 24


def write_720p(path, seconds):
    """The same moving second again and again: encoded once, joined packet by packet."""
    y, x = (indices.astype(np.uint8) for indices in np.indices((720, 1280)))
    once = path.with_name("second.mp4")
    with av.open(once, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"x264-params": "bframes=0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for i in range(FPS):
            frame = np.stack([x + np.uint8(9 * i), y + np.uint8(5 * i), x // 8 + y // 8], -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(once) as source, av.open(path, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [bytes(packet) for packet in source.demux(video=0) if packet.size]
        for i in range(seconds * FPS):
            packet = av.Packet(packets[i % FPS])
            packet.stream, packet.time_base = stream, Fraction(1, FPS)
            packet.pts = packet.dts = i
            packet.duration, packet.is_keyframe = 1, i % FPS == 0
            target.mux(packet)


# Python and its libraries take most of either; all frames of six seconds would be 400 MB more.
@pytest.mark.parametrize(("seconds", "limit"), [(6, 600), pytest.param(600, 1500, marks=pytest.mark.slow)])
def test_memory_of_all_metrics_without_a_network(tmp_path, seconds, limit):
    write_720p(tmp_path / "long.mp4", seconds)
    command = [
        sys.executable,
        "-c",
        EVALUATE,
        tmp_path / "long.mp4",
        f"--out={tmp_path / 'out'}",
        "--segment-frames=33",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"long.mp4: {seconds * FPS} frames, {seconds}.0 s" in said
    found = scores(tmp_path / "out")
    assert len(found) == 13 and all(score["value"] is not None for score in found.values()), found
    assert len(found["temporal_flickering"]["values"]) == seconds * FPS - 1
    megabytes = int(re.search(r"peak (\d+)", said)[1]) / 1024
    print(f"{megabytes:.0f} MB")
    assert megabytes < limit
