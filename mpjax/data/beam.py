"""The encoding of clips as a Beam pipeline, for what one machine cannot hold: the same cache, hence the same records.

Workers and the process that starts them share the folder of the cache (a network file system), and the videos.
Needs the extra `beam` (requirements-beam.txt).
"""

import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpjax.conditioning.cache import ArrayCache, content_key
from mpjax.data.clip_encoding import ClipEncoder
from mpjax.data.raw.clip import Clip
from mpjax.errors import InputError


def pipeline_options(runner: str, flags: Sequence[str]) -> Any:
    """Beam's options.

    Args:
        runner: `DirectRunner`, `FlinkRunner`, `SparkRunner`, `DataflowRunner`, … as Beam names them.
        flags: what the runner needs besides, as `--region=…`.

    Raises:
        InputError: Beam is not installed.
    """
    _beam()
    return importlib.import_module("apache_beam.options.pipeline_options").PipelineOptions(
        [f"--runner={runner}", *flags]
    )


def encode_with_beam(clips: Sequence[Clip], encoder: ClipEncoder, folder: Path, options: Any) -> dict[str, str]:
    """Encodes clips on Beam's workers into the cache `folder`.

    Returns:
        by id, why a clip could not be encoded.
    """
    beam = _beam()
    failures = folder / "failures"
    shutil.rmtree(failures, ignore_errors=True)
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "Clips" >> beam.Create(list(clips))
            | "Spread" >> beam.Reshuffle()
            | "Encode" >> beam.Map(_encode, encoder, folder, failures)
        )
    found = {clip.id: failures / f"{content_key(clip.id)}.txt" for clip in clips}
    return {name: path.read_text() for name, path in found.items() if path.is_file()}


def _encode(clip: Clip, encoder: ClipEncoder, folder: Path, failures: Path) -> None:
    try:
        encoder.encode(clip, ArrayCache(folder))
    except InputError as error:
        failures.mkdir(parents=True, exist_ok=True)
        (failures / f"{content_key(clip.id)}.txt").write_text(str(error))


def _beam() -> Any:
    try:
        return importlib.import_module("apache_beam")
    except ImportError as error:
        raise InputError("--beam_runner needs Apache Beam: pip install -r requirements-beam.txt") from error
