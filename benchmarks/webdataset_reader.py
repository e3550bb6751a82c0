"""The rival of `benchmarks.data_loading`: the same batches through WebDataset and torch's DataLoader.

Runs in a Python that has both and needs nothing of this package. Its argument is JSON; it prints JSON.
"""

import json
import platform
import sys
import time
import zlib
from typing import Any

MEAN, STD = 0.5, 2.0


def to_example(sample: dict[str, Any], frames: int, text_tokens: int) -> dict[str, Any]:
    """What `mpjax.data.clip_batches` makes of a record: normalised float32 segments and a padded prompt."""
    import torch

    shapes = json.loads(sample["shapes.json"])
    found = {
        name: torch.frombuffer(bytearray(sample[f"{name}.bf16"]), dtype=torch.bfloat16).reshape(shape).float()
        for name, shape in shapes.items()
    }
    latents = (found["latents"] - MEAN) / STD
    text = torch.zeros(text_tokens, shapes["text"][-1])
    text[: len(found["text"])] = found["text"]
    return {
        "reference": latents[:1],
        "segments": latents[1:].reshape(-1, frames, *latents.shape[1:]),
        "text": text,
        "text_mask": torch.arange(text_tokens) < len(found["text"]),
        "pooled": found["pooled"],
        "image": found["image"],
    }


def loaded(sizes: dict[str, Any], endless: bool) -> Any:
    """Batches of one pass over the samples, or of one after another."""
    import torch
    import webdataset

    samples = webdataset.WebDataset(sizes["tars"], shardshuffle=len(sizes["tars"]), seed=0).shuffle(8)
    samples = samples.repeat() if endless else samples
    samples = samples.map(lambda sample: to_example(sample, sizes["segment_frames"], sizes["text_tokens"]))
    return iter(torch.utils.data.DataLoader(samples, batch_size=sizes["batch"], num_workers=sizes["workers"]))


def checksum(rows: Any) -> int:
    """Of latents `[b, …]`: a sum over its samples, so their order is free, but none may be missing or come twice."""
    return sum(zlib.crc32(row.tobytes()) for row in rows)


def main(sizes: dict[str, Any]) -> dict[str, Any]:
    """Checksum of one pass; then latent frames, and seconds from the first batch of new readers on, not counted."""
    import torch
    import webdataset

    read = sum(checksum(batch["segments"].numpy()) for batch in loaded(sizes, endless=False))
    batches = loaded(sizes, endless=True)
    next(batches)
    start, frames = time.perf_counter(), 0
    for _ in range(sizes["batches"]):
        b, s, f = next(batches)["segments"].shape[:3]
        frames += b * (1 + s * f)
    return {
        "latent_frames": frames,
        "seconds": time.perf_counter() - start,
        "checksum": read,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "webdataset": webdataset.__version__,
        },
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
