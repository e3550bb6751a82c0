"""A side in plain numpy: the square of a matrix. Its variant says what it does wrong."""

import os
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.side_by_side import side


class Square:
    """`job` has `matrix`, a safetensors file; `turns`, a file to which every run adds the variant; `megabytes`."""

    def __init__(self, job):
        if job["variant"] == "refuses":
            raise ValueError("a matrix\nof no kind")
        self.job, self.matrix = job, load_file(job["matrix"])["matrix"]
        self.about = {"cores": sorted(os.sched_getaffinity(0)), "threads": os.getenv("OMP_NUM_THREADS")}
        self.about["environment"] = dict(os.environ)

    def run(self):
        if self.job["variant"] == "dies":
            sys.stderr.write("out of everything\n")
            os._exit(3)
        print("a library that chatters")
        with Path(self.job["turns"]).open("a") as file:
            file.write(self.job["variant"] + "\n")
        held = np.ones(self.job["megabytes"] << 17)  # 8 bytes each
        time.sleep(self.job["sleep"] * (2 if self.job["variant"] == "slow" else 1))
        assert held.sum()

    def write(self, path):
        result = self.matrix @ self.matrix * (1.01 if self.job["variant"] == "wrong" else 1.0)
        assert np.ones(self.job["megabytes"] << 18).sum()  # a copy for the file, which is no part of the job
        save_file({"other" if self.job["variant"] == "names" else "square": result}, path)

    def multiply(self):
        self.matrix @ self.matrix
        return 2 * len(self.matrix) ** 3

    def device_bytes(self):
        return None


if __name__ == "__main__":
    side.serve(lambda: Square)
