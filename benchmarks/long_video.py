"""A long video by a network and an autoencoder of random weights, end to end: seconds a segment, and memory.

    export XLA_PYTHON_CLIENT_MEM_FRACTION=0.95
    python -m benchmarks.long_video --config=configs/framepack_f1_13b.py --folder=DISK --pause-after=10 --out=h200.json

generates a minute as `generate` does, segment by segment into files of the folder: noise, history, memory, sampler,
autoencoder and H.264. After every ten segments it drops the network and goes on from those files. A kill is another
such pause: the same command goes on. What the prompt says to the network is random too, so that no text encoder is
needed.

The result is one JSON file: the seconds of each segment, by part; the first one of a part compiles. A part that was
killed is not in it.
"""

import argparse
import functools
import json
import math
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measuring import check_memory, peak_bytes
from benchmarks.random_network import random_inputs, random_params
from benchmarks.record import check_out, description
from benchmarks.side_by_side.workload import write_weights
from mpjax import config, experiment
from mpjax.codecs import pixel_frames
from mpjax.codecs.hunyuan_vae import HunyuanVaeCodec
from mpjax.errors import InputError
from mpjax.experiment import ClipsData, Experiment
from mpjax.generation.request import Plan
from mpjax.generation.rollout import Rollout
from mpjax.generation.sampling import SamplingRequest, plan_sampling
from mpjax.generation.stream import write_video
from mpjax.interop.transformer_names import parameter_shapes
from mpjax.interop.vae_names import vae_entries
from mpjax.interop.vae_weights import vae_config
from mpjax.models.memorypack import Denoiser
from mpjax.models.vae import VaeArchitecture
from mpjax.weights import Network, Run
from mpjax.whole_files import write_json

WEIGHTS = jnp.bfloat16


class Countdown(threading.Event):
    """Set once it was looked at so many times."""

    def __init__(self, looks: int):
        super().__init__()
        self._left = looks

    def is_set(self) -> bool:
        """Whether all looks are used up."""
        self._left -= 1
        return self._left < 0


def random_run(loaded: Experiment, folder: Path, seed: int) -> Run:
    """A run of the experiment's network; the autoencoder in `folder/vae` is drawn at random unless it exists.

    Raises:
        InputError: the network does not read embeddings, or its data are no clips.
    """
    if loaded.model.encoders is not None:
        raise InputError("config.model.encoders is set: give a config of a network that reads embeddings")
    if not isinstance(loaded.data, ClipsData):
        raise InputError(f"data.kind is {loaded.data.kind!r}: give a config whose data are clips")
    vae = folder / "vae"
    if not vae.is_dir():
        unfinished = vae.with_suffix(".unfinished")
        unfinished.mkdir(parents=True, exist_ok=True)
        write_weights(unfinished, vae_config(VaeArchitecture()), vae_entries(VaeArchitecture()), "float32")
        unfinished.rename(vae)
    return Run(
        folder=folder,
        network=Network(
            model=loaded.model,
            guidance=loaded.guidance,
            sampler=loaded.sampler,
            classifier_free=loaded.classifier_free,
        ),
        experiment=None,
        codec=HunyuanVaeCodec(weights=str(vae), segment_frames=loaded.model.framepack.segment_frames),
        fps=float(loaded.data.fps),
        height=loaded.data.height,
        width=loaded.data.width,
        identity=f"random {seed} {experiment.fingerprint(loaded)}",
    )


def random_plan(run: Run, seconds: float, latent_size: tuple[int, int], seed: int) -> Plan:
    """A video of one prompt that is random numbers, after a first frame of which the same is true."""
    key = jax.random.fold_in(jax.random.key(seed), 1)
    inputs = jax.tree.map(np.asarray, random_inputs(run.model, latent_size, key))
    condition = jax.tree.map(lambda x: x[0], inputs.condition)
    sampling = plan_sampling(run, SamplingRequest())
    return Plan(
        fps=run.fps,
        frames=round(seconds * run.fps),
        segment_frames=pixel_frames(run.codec, 1 + run.model.framepack.segment_frames) - 1,
        prompts=("",),
        conditions=(condition,),
        negative=condition if sampling.classifier_free.active else None,
        reference=inputs.history.reference[0],
        clip=None,
        given=0,
        seed=seed,
        least=1,
        sampling=sampling,
        backwards=run.model.framepack.backwards,
        step=0,
        fingerprint=f"{run.identity} {seconds:g}",
    )


def rollout(run: Run, plan: Plan, seed: int, offload: bool) -> Rollout:
    """Weights drawn anew, the same ones every time."""
    sampling = plan.sampling
    return Rollout(
        Denoiser(run.model, sampling.distilled_guidance),
        sampling.sampler,
        run.codec,
        random_params(run.model, jax.random.fold_in(jax.random.key(seed), 0), WEIGHTS),
        sampling.classifier_free,
        sampling.cache,
        offload=offload,
    )


def measure(
    loaded: Experiment, folder: Path, *, seconds: float, pause_after: int, seed: int, offload: bool
) -> dict[str, Any]:
    """Generates the video, or what is left of it."""
    arch = loaded.model
    device = jax.devices()[0]
    count = sum(leaf.size for leaf in jax.tree.leaves(parameter_shapes(arch)))
    check_memory("the network's weights", count * jnp.dtype(WEIGHTS).itemsize, device)
    run = random_run(loaded, folder, seed)
    plan = random_plan(run, seconds, loaded.latent_size, seed)
    load = functools.partial(rollout, run, plan, seed, offload)
    kept = folder / "seconds.json"
    parts: list[list[float]] = json.loads(kept.read_text()) if kept.exists() else []
    finished = False
    while not finished:
        stopping = Countdown(pause_after) if pause_after else None
        done = write_video(run, load, plan, folder / "video.mp4", stopping=stopping)
        if done.seconds_per_segment:
            parts.append(list(done.seconds_per_segment))
            write_json(kept, parts)
        finished = done.finished
    steady = [value for part in parts for value in part[1:]]
    return {
        "parameters": count,
        "latents": [arch.framepack.segment_frames, *loaded.latent_size, arch.channels],
        "sampling": config.to_dict(plan.sampling),
        "video": str(done.path),
        "frames": done.frames,
        "segments": plan.segments,
        "seconds_per_segment": parts,
        "median_seconds": float(np.median(steady)) if steady else None,
        "peak_bytes": peak_bytes(device),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; bad input prints one sentence and returns 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="benchmarks.long_video", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--config", required=True, help="config file; fields as --config.data.height=256")
    parser.add_argument("--folder", type=Path, required=True, help="for the autoencoder, the parts and the video")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--seconds", type=float, default=60.0, help="of video (default: 60)")
    parser.add_argument("--pause-after", type=int, default=0, help="segments of a part (default: all in one)")
    parser.add_argument("--offload", action="store_true", help="weights go to the host while the autoencoder works")
    parser.add_argument("--seed", type=int, default=0, help="of weights, prompt and first frame")
    args, overrides = parser.parse_known_args(arguments)
    try:
        if not (args.seconds > 0 and math.isfinite(args.seconds)):
            raise InputError(f"--seconds is {args.seconds:g}: give a length above 0")
        if args.pause_after < 0:
            raise InputError(f"--pause-after is {args.pause_after}: give a number of segments, or 0")
        loaded = experiment.load(args.config, overrides)
        check_out(args.out)
        result = measure(
            loaded,
            args.folder,
            seconds=args.seconds,
            pause_after=args.pause_after,
            seed=args.seed,
            offload=args.offload,
        )
    except InputError as error:
        print(f"benchmarks.long_video: {error}", file=sys.stderr)
        return 2
    described = description("benchmarks.long_video", arguments, args.seed)
    args.out.write_text(json.dumps(described | result, indent=2) + "\n")
    print(f"{args.out}: {result['frames']} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
