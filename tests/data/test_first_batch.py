import json
import subprocess
import sys

import numpy as np

from benchmarks.synthetic_records import record, write_dataset
from tests.data import first_batch


def test_ten_thousand_records_are_ready_at_once(tmp_path):
    sizes = [(2, 3), (3, 2), (4, 4)]

    def latents(clip: int) -> np.ndarray:
        return np.full((1 + 2 * (1 + clip % 4), *sizes[clip % 3], 3), clip % 100, np.float32)

    records = [record(clip, latents(clip), segment_frames=2, caption=f"clip {clip}") for clip in range(10_000)]
    dataset = write_dataset(tmp_path, {"train": records}, segment_frames=2, shard=1000)
    script = [sys.executable, first_batch.__file__, str(dataset.path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["train"] == 10_000
    assert said["seconds"] <= 5 and said["bytes"] <= 1 << 30, said
