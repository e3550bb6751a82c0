"""Where a video begins: a picture of the user's, or the first frame of a video the model was never trained on."""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from mpjax.conditioning.buckets import cover
from mpjax.data.filmstrip import to_uint8
from mpjax.data.recallworld.clips import clip_seed, sample_clip
from mpjax.data.recallworld.render import render
from mpjax.data.recallworld.world import World
from mpjax.data.video import FrameResizer, picture_size, read_image
from mpjax.errors import InputError
from mpjax.experiment import ClipsData, Experiment, RecallWorldData
from mpjax.weights import Run

if TYPE_CHECKING:
    from mpjax.datasets import Datasets


def read_picture(run: Run, image: str | Path | np.ndarray) -> np.ndarray:
    """A picture, resized to cover the run's frame and cropped at the centre: uint8 `[H, W, 3]`.

    For pretrained encoders by Lanczos, as FramePack's demo does it; else as training's videos were.

    Args:
        run: gives the size.
        image: a file (of a video its first frame), or uint8 `[H, W, 3]`.

    Raises:
        InputError: no picture.
    """
    if not isinstance(image, np.ndarray):
        if not isinstance(image, (str, Path)):
            raise InputError(f"image is a {type(image).__name__}: give a path, or uint8 [height, width, 3]")
        image = Path(image)
        if run.model.encoders is not None:
            return read_image(image, height=run.height, width=run.width)
        height, width = picture_size(image)
        image = read_image(image, height=height, width=width)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise InputError(f"image is {image.dtype} {list(image.shape)}: give uint8 [height, width, 3]")
    if image.shape[:2] == (run.height, run.width):
        return image
    if run.model.encoders is None:
        return cover(image, run.height, run.width)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return FrameResizer(Path("image"), run.height, run.width)(frame, None)


def latents_of(run: Run, picture: np.ndarray) -> np.ndarray:
    """Latents float32 `[1, h, w, c]` of a first frame, uint8 `[H, W, 3]` of the run's size."""
    return run.codec.encode(to_float(picture[None, None]))[0]


def shown(run: Run, reference: np.ndarray) -> np.ndarray:
    """A first frame as the codec shows its latents `[1, h, w, c]`: uint8 `[H, W, 3]`."""
    return to_uint8(run.codec.decode(reference[None])[0, 0])


def held_out(run: Run, seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """A first frame and the prompts that belong to it, one a segment (the last one goes on).

    RecallWorld: clip 0 of validation batch `seed`. Clips: clip 0 of the same batch of the dataset's validation split,
    or of its train split where nothing is held out; its caption is the only prompt.

    Returns:
        latents float32 `[1, h, w, c]` and prompts.

    Raises:
        InputError: the run's dataset is gone, another one is in its place, or converted weights never had one.
    """
    if run.experiment is None:
        raise InputError(f"{run.folder} holds converted weights and no dataset: give --image or --video")
    data = run.experiment.data
    if isinstance(data, RecallWorldData):
        return _recallworld(run, run.experiment, data.world, seed)
    if run.model.encoders is None:
        raise InputError(f"{run.folder} was trained on embeddings, not on captions: give --image or --video")
    datasets = _datasets(run.experiment, Path(data.path))
    if datasets.codec != run.codec:
        raise InputError(f"{data.path} was encoded again since {run.folder} was trained: give --image or --video")
    batch = (datasets.validation or datasets.train)[seed]
    tokens = np.asarray(batch.prompts[0, 0])
    caption = bytes((tokens[tokens > 0] - 1).astype(np.uint8)).decode("utf-8")
    return np.asarray(batch.reference[0]), (caption,)


@functools.lru_cache(maxsize=1)
def _datasets(experiment: Experiment, path: Path) -> "Datasets":
    """Opened once for many videos."""
    from mpjax.data.latents import DATASET_FILE
    from mpjax.datasets import open_datasets  # TFDS takes a second to import, and only clips need it

    if not (path / DATASET_FILE).is_file():
        raise InputError(f"dataset {path} of the run is not here: give --image or --video")
    assert isinstance(experiment.data, ClipsData)
    with_captions = dataclasses.replace(experiment.data, text_dropout=0.0)
    return open_datasets(dataclasses.replace(experiment, data=with_captions))


def to_float(frames: np.ndarray) -> np.ndarray:
    """uint8 → float32 in [−1, 1], as codecs read pixels."""
    return frames.astype(np.float32) / 127.5 - 1


def _recallworld(run: Run, experiment: Experiment, world: World, seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    number = clip_seed(seed=experiment.seed, split="validation", step=seed, index=0)
    segments = experiment.training.segments
    # The gap is one that fits into a training clip; one segment more ends in the prompt that can go on for ever.
    gap = sample_clip(world, number, segments).gap
    clip = sample_clip(world, number, segments + 1, gap)
    return run.codec.encode(render(world, [clip])[:, :1])[0], clip.prompts
