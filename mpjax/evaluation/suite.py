"""Prompt and image suites: which videos a study wants, read from VBench's files, and the commands that generate them.

A suite is a JSON list of objects as in VBench's `VBench_full_info.json` and VBench-I2V's `vbench2_i2v_full_info.json`:
`prompt_en`, `dimension` (a list), and for image-to-video `image_name`. VBench-I2V's pictures lie in `crop/RATIO/`, its
camera prompts name no picture of their own and take no part here.
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpjax import config
from mpjax.data.clip_sources import MANIFEST_FILE
from mpjax.errors import InputError
from mpjax.markup import counted
from mpjax.weights import read_run
from mpjax.whole_files import write_file

SCRIPT = "generate.sh"
NAME_BYTES = 255 - len(".mp4.json.partial")  # of a video's name, with what `generate` writes beside the video


@dataclass(frozen=True, kw_only=True)
class Length:
    """So many videos of one length.

    Attributes:
        seconds: the length.
        videos: how many, all samples counted; 0, in the last length alone, takes all entries that are left.
    """

    seconds: float = 5.0
    videos: int = 0

    def __post_init__(self):
        if not self.seconds > 0 or self.videos < 0:
            raise InputError(
                f"config.lengths: {self.videos} videos of {self.seconds:g} s: use 0 or more, and more than 0 s"
            )


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What to take from which files.

    Attributes:
        info: JSON file of the suite.
        images: folder of the pictures, with `crop/RATIO/` in it or without; empty for prompts alone.
        ratio: of VBench-I2V's crops: `1-1`, `8-5`, `7-4` or `16-9`.
        dimensions: take entries of these dimensions only; empty for all.
        lengths: how many videos of which length; no entry is of two lengths.
        samples: videos of each entry, from different noise. VBench samples 5, and 25 for temporal flickering.
        seed: which entries get which length.
    """

    info: str = ""
    images: str = ""
    ratio: str = "16-9"
    dimensions: tuple[str, ...] = ()
    lengths: tuple[Length, ...] = (Length(),)
    samples: int = 1
    seed: int = 0

    def __post_init__(self):
        if self.samples < 1:
            raise InputError(f"config.samples is {self.samples}: give 1 or more videos of each entry")
        if not self.lengths:
            raise InputError("config.lengths is empty: give one length or more")
        for length in self.lengths[:-1]:
            if not length.videos:
                raise InputError(
                    f"config.lengths: 0 videos of {length.seconds:g} s take all that are left, and nothing is left for "
                    "the lengths after it; give a number"
                )
        for length in self.lengths:
            if length.videos % self.samples:
                raise InputError(
                    f"config.lengths: {length.videos} videos of {length.seconds:g} s are no multiple of "
                    f"{self.samples} samples; change one of them"
                )


@dataclass(frozen=True, kw_only=True)
class Case:
    """One video to generate.

    Attributes:
        name: of the video, without suffix: VBench's own, which is the prompt or the name of the picture, by which
            `evaluate --images` finds it, with -0, -1, … behind; of a picture with one sample its bare name.
        prompt: text.
        image: the first frame, None for prompts alone.
        seconds: length.
        seed: of the noise.
    """

    name: str
    prompt: str
    image: Path | None
    seconds: float
    seed: int


def load(path: str, overrides: Sequence[str] = ()) -> Suite:
    """A suite from a config file."""
    return config.build(Suite, config.load(path, overrides))


def cases_of(suite: Suite) -> list[Case]:
    """The videos of a suite; the same suite gives the same ones, whatever the order of its file.

    Raises:
        InputError: a file that is no suite, pictures that are not there, or fewer entries than videos.
    """
    entries = _entries(suite)
    order = sorted(entries, key=lambda name: hashlib.sha256(f"{suite.seed}/{name}".encode()).hexdigest())
    wanted = sum(length.videos // suite.samples for length in suite.lengths)
    if wanted > len(order):
        raise InputError(
            f"{suite.info}: config.lengths asks for videos of {wanted} entries and there are {len(order)}; "
            "lower its numbers"
        )
    cases: list[Case] = []
    for length in suite.lengths:
        count = length.videos // suite.samples or len(order)
        if not count:
            raise InputError(
                f"{suite.info}: no entry is left for {length.seconds:g} s; lower the numbers in config.lengths"
            )
        chosen, order = order[:count], order[count:]
        for name in chosen:
            prompt, image = entries[name]
            for sample in range(suite.samples):
                cases.append(
                    Case(
                        name=name if image is not None and suite.samples == 1 else f"{name}-{sample}",
                        prompt=prompt,
                        image=image,
                        seconds=length.seconds,
                        seed=suite.seed + len(cases),
                    )
                )
    return cases


def write_suite(suite: Suite, weights: Path, out: Path) -> list[str]:
    """Writes manifest.jsonl and generate.sh into the folder of the videos and returns what to tell.

    The script goes on where it was stopped, as `generate` does. The manifest gives `study` and `encode` the captions.

    Args:
        suite: which videos.
        weights: run folder of `train` or `convert`.
        out: folder; one that holds the same suite is written again with the same bytes.

    Raises:
        InputError: as `cases_of`, no run folder, or the folder of another suite.
    """
    read_run(weights)
    cases = cases_of(suite)
    rows, lines = [], ["#!/usr/bin/env bash", "set -euo pipefail"]
    for case in cases:
        video = out / f"{case.name}.mp4"
        image = None if case.image is None else str(case.image)
        row = {"file": video.name, "caption": case.prompt, "image": image, "seconds": case.seconds, "seed": case.seed}
        rows.append(json.dumps(row, ensure_ascii=False))
        words = ["python", "-m", "mpjax", "generate", f"--weights={weights}", f"--prompt={case.prompt}"]
        words += [] if image is None else [f"--image={image}"]
        words += [f"--seconds={case.seconds:g}", f"--seed={case.seed}", f"--out={video}"]
        lines.append(shlex.join(words))
    files = {out / MANIFEST_FILE: "\n".join(rows) + "\n", out / SCRIPT: "\n".join(lines) + "\n"}
    for path, text in files.items():
        if path.exists() and (not path.is_file() or path.read_bytes() != text.encode()):
            raise InputError(f"{path} is of another suite or of other weights: give another --out")
    for path, text in files.items():
        write_file(path, text)
    by_length: dict[float, int] = {}
    for case in cases:
        by_length[case.seconds] = by_length.get(case.seconds, 0) + 1
    counts = ", ".join(f"{count} of {seconds:g} s" for seconds, count in by_length.items())
    return [f"{counted(len(cases), 'video')}: {counts}", f"generate them: bash {out / SCRIPT}"]


def _entries(suite: Suite) -> dict[str, tuple[str, Path | None]]:
    """Prompt, or name of the picture → prompt and picture."""
    if not suite.info:
        raise InputError("config.info is empty: give the JSON file of the suite, --config.info=FILE")
    path = Path(suite.info)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON; give a suite as VBench writes it") from error
    found: dict[str, tuple[str, Path | None]] = {}
    for number, row in enumerate(rows if isinstance(rows, list) else [None]):
        if not isinstance(row, dict) or not isinstance(row.get("prompt_en"), str):
            raise InputError(f"{path}: entry {number} has no prompt_en; give a suite as VBench writes it")
        dimensions = row.get("dimension", [])
        if not isinstance(dimensions, list) or not all(isinstance(each, str) for each in dimensions):
            raise InputError(f"{path}: entry {number} has a dimension that is no list of names; correct it")
        if suite.dimensions and not set(suite.dimensions) & set(dimensions):
            continue
        image = None
        if suite.images:
            if "image_name" not in row:
                continue
            if not isinstance(row["image_name"], str) or not row["image_name"]:
                raise InputError(f"{path}: entry {number} has an image_name that is no file name; correct it")
            image = _picture(Path(suite.images), suite.ratio, row["image_name"])
        name = row["prompt_en"] if image is None else image.stem
        if "/" in name:
            raise InputError(f"{path}: entry {number} has a / in its prompt, which cannot name a file; leave it out")
        longest = name if image is not None and suite.samples == 1 else f"{name}-{suite.samples - 1}"
        if len(longest.encode()) > NAME_BYTES:
            raise InputError(
                f"{path}: entry {number} has a prompt too long to name a file, over {NAME_BYTES} bytes: leave it out"
            )
        found.setdefault(name, (row["prompt_en"], image))
    if not found:
        raise InputError(f"{path}: no entry fits config.dimensions and config.images; change them")
    return found


def _picture(folder: Path, ratio: str, name: str) -> Path:
    places = [folder / "crop" / ratio / name, folder / ratio / name, folder / name]
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"{places[0]}: no such picture, nor {places[1]} or {places[2]}; check config.images and config.ratio"
    )
