"""HunyuanVideo's own encoders, run by `transformers`: LLaMA and CLIP for the prompt, SigLIP for the first frame.

They run on the CPU, once for each prompt and picture, in `encode` and `generate` alone; what they return is cached on
disk: by `prompt` and `image` for the user, by `encode` beside its clips. Needs the extra `encoders`
(requirements-encoders.txt).

Source: docs/backbone.md, section 2.7 (diffusers 0.42 `HunyuanVideoFramepackPipeline.encode_prompt`, `encode_image`).
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

from mpjax.conditioning.cache import ArrayCache, Arrays, content_key
from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import file_names, sampled_hash

# The words in front of every prompt; LLaMA was tuned on them. No space before "2." to "5.".
TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
TEMPLATE_TOKENS = 95  # of them at the beginning, which are dropped
PROMPT_TOKENS = 256  # kept of LLaMA at most
TEXT_TOKENS = 512  # length that the network reads; the rest is padding
CLIP_TOKENS = 77
IMAGE_TOKENS = 729  # of SigLIP: 384 pixels in patches of 14, 27 × 27
LLAMA_LAYER = -3  # of the hidden states, without the final norm

FOLDERS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "image_encoder")
TOKENIZERS = ("tokenizer", "tokenizer_2")
MODELS = ("text_encoder", "text_encoder_2", "image_encoder")


class PretrainedEncoders:
    """The three encoders of a folder, loaded when they are first needed."""

    def __init__(self, folder: Path, cache: Path):
        """Checks the folder and loads nothing.

        Args:
            folder: has the subfolders `FOLDERS`, in the layout of diffusers' pipelines; weights as safetensors.
            cache: folder of embeddings made before.

        Raises:
            InputError: a part is missing.
        """
        for name in FOLDERS:
            if not (folder / name).is_dir():
                raise InputError(
                    f"{folder} has no {name}/: give a folder with {', '.join(FOLDERS)} as diffusers stores them"
                )
        for name in MODELS:
            if not (folder / name / "config.json").is_file() or not list((folder / name).glob("*.safetensors")):
                raise InputError(f"{folder / name} lacks config.json or *.safetensors: copy it again")
        self._folder = folder
        self._cache = ArrayCache(cache)

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process go no weights: it loads its own once.
        return pretrained, (self._folder,)

    def check(self) -> None:
        """Whether the libraries are there and the files whole; loads no weights.

        Raises:
            InputError: something is missing or damaged.
        """
        _, transformers = _libraries()
        for name in TOKENIZERS:
            self._tokenizer(name)
        for name in MODELS:
            folder = self._folder / name
            with _readable(folder):
                transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
                for file in file_names(folder)[0]:
                    with safe_open(folder / file, "numpy"):  # reads the header, and whether the file ends with it
                        pass

    @functools.cached_property
    def identity(self) -> str:
        """A hash of what decides the embeddings: configs, tokenizers, and samples all over the weight files."""
        files = (path for name in FOLDERS for path in sorted((self._folder / name).iterdir()) if path.is_file())
        return sampled_hash(tuple(files))

    def prompt(self, prompt: str) -> Arrays:
        """Embeds a prompt, or takes it from the cache.

        Returns:
            `text` float32 `[512, d]` (zeros behind the last token), `text_mask` bool `[512]`, `pooled` float32 `[dp]`.
        """
        return padded(self._cache.get(content_key("prompt", self.identity, prompt), lambda: self.embed_prompt(prompt)))

    def image(self, picture: np.ndarray) -> np.ndarray:
        """As `embed_image`, or from the cache."""
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            raise InputError(f"image is {picture.dtype} {list(picture.shape)}: give uint8 [height, width, 3]")
        key = content_key("image", self.identity, picture)
        return self._cache.get(key, lambda: {"image": self.embed_image(picture)})["image"]

    def embed_prompt(self, prompt: str) -> Arrays:
        """Runs LLaMA and CLIP and stores nothing: `text` float32 `[n, d]`, n at most 256, and `pooled` `[dp]`."""
        torch, _ = _libraries()
        ids, mask = self._tokens("tokenizer", TEMPLATE.format(prompt), TEMPLATE_TOKENS + PROMPT_TOKENS)
        words, _ = self._tokens("tokenizer_2", prompt, CLIP_TOKENS)
        with torch.inference_mode():
            states = self._llama(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            text = states[LLAMA_LAYER][0, TEMPLATE_TOKENS : int(mask.sum())]
            # CLIP is causal and pools at the end of the prompt: what stands behind does not matter.
            pooled = self._clip(words).pooler_output[0]
        return {"text": text.float().numpy(), "pooled": pooled.float().numpy()}

    def embed_image(self, picture: np.ndarray) -> np.ndarray:
        """Runs SigLIP and stores nothing.

        Args:
            picture: a first frame as the video shows it, uint8 `[H, W, 3]`.

        Returns:
            float32 `[729, di]`.
        """
        torch, _ = _libraries()
        side = self._siglip.config.image_size
        resized = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)
        pixels = (np.asarray(resized, np.float32) / 255 - 0.5) / 0.5
        tensor = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).to(self._siglip.dtype)
        with torch.inference_mode():
            return self._siglip(tensor).last_hidden_state[0].float().numpy()

    def _tokens(self, name: str, text: str, length: int) -> tuple[Any, Any]:
        """Token ids and mask `[1, length]`, padded on the right, as torch tensors."""
        tokenizer = self._tokenizer(name)
        tokenizer.padding_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokens = tokenizer([text], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return tokens["input_ids"], tokens["attention_mask"]

    def _tokenizer(self, name: str) -> Any:
        _, transformers = _libraries()
        with _readable(self._folder / name):
            return transformers.AutoTokenizer.from_pretrained(self._folder / name, local_files_only=True)

    def _load(self, kind: str, name: str) -> Any:
        """A model from its folder, in the dtype it is stored in; safetensors only, so that nothing is unpickled."""
        _, transformers = _libraries()
        folder, loader = self._folder / name, getattr(transformers, kind)
        options = {"local_files_only": True, "use_safetensors": True, "dtype": "auto", "output_loading_info": True}
        with _readable(folder):
            model, found = loader.from_pretrained(folder, **options)
        if missing := sorted(found["missing_keys"]):  # transformers would draw them at random
            raise InputError(f"{folder} lacks {len(missing)} tensors of {kind}, such as {missing[0]}: copy it again")
        return model.eval()

    @functools.cached_property
    def _llama(self) -> Any:
        return self._load("LlamaModel", "text_encoder")

    @functools.cached_property
    def _clip(self) -> Any:
        return self._load("CLIPTextModel", "text_encoder_2")

    @functools.cached_property
    def _siglip(self) -> Any:
        return self._load("SiglipVisionModel", "image_encoder")


@functools.cache
def pretrained(folder: Path) -> PretrainedEncoders:
    """The encoders of a folder, with the user's cache; one for a whole process, since LLaMA is slow to load.

    Raises:
        InputError: a part is missing.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return PretrainedEncoders(folder, cache / "mpjax" / "embeddings")


def padded(stored: Arrays) -> Arrays:
    """What is stored of a prompt, `text` `[n, d]` and `pooled`, as `PretrainedEncoders.prompt` returns it."""
    count, width = stored["text"].shape
    text = np.zeros((TEXT_TOKENS, width), np.float32)
    text[:count] = stored["text"]
    return {"text": text, "text_mask": np.arange(TEXT_TOKENS) < count, "pooled": stored["pooled"]}


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Whatever transformers raises over the files of a folder, in one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # JSON, tokenizers, safetensors and torch each raise errors of their own, some of many lines.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise InputError(f"{folder} cannot be read ({reason}): copy it again") from error


def _libraries() -> tuple[Any, Any]:
    """torch and transformers."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise InputError(
            "LLaMA, CLIP and SigLIP need transformers and torch, whose CPU build is enough: "
            "pip install torch transformers"
        ) from error
    return torch, transformers
