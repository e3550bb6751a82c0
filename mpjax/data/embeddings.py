"""Embeddings beside the records of a dataset: of prompts by their words, of first frames by their clip."""

from pathlib import Path

import numpy as np

from mpjax.conditioning.cache import Arrays, EmbeddingCache, content_key
from mpjax.conditioning.pretrained import PretrainedEncoders, padded
from mpjax.errors import InputError

FOLDER = "embeddings"


class DatasetEmbeddings:
    """The folder `embeddings` of a dataset; what is written once is read at random."""

    def __init__(self, dataset: Path):
        """`dataset` is the directory of the dataset."""
        self._folder = dataset / FOLDER
        self._cache = EmbeddingCache(self._folder)

    @classmethod
    def of(cls, dataset: Path) -> "DatasetEmbeddings":
        """Those of a finished dataset.

        Raises:
            InputError: it was encoded without pretrained encoders.
        """
        if not (dataset / FOLDER).is_dir():
            raise InputError(f"{dataset} holds no embeddings: encode the videos again, with data.encoders")
        return cls(dataset)

    def add(self, encoders: PretrainedEncoders, clip: str, caption: str, picture: np.ndarray) -> None:
        """Stores a caption and the first frame of a clip, uint8 `[H, W, 3]`, unless they are there."""

        def prompt() -> Arrays:
            found = encoders.prompt(caption)
            return {"text": found["text"][found["text_mask"]], "pooled": found["pooled"]}

        self._cache.get(content_key("prompt", caption), prompt)
        self._cache.get(content_key("image", clip), lambda: {"image": encoders.image(picture)})

    def condition(self, clip: str, caption: str) -> Arrays:
        """`text` `[512, d]`, `text_mask`, `pooled` and `image` of a clip.

        Raises:
            InputError: they were never stored, or the folder was damaged.
        """
        prompt = self._cache.get(content_key("prompt", caption), self._missing)
        return padded(prompt) | self._cache.get(content_key("image", clip), self._missing)

    def _missing(self) -> Arrays:
        raise InputError(f"{self._folder} lacks embeddings of its own clips: encode the videos again")
