"""The verb `generate`: from flags to videos."""

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

from mpjax.conditioning.buckets import nearest_bucket
from mpjax.data.video import picture_size
from mpjax.errors import InputError
from mpjax.generation.adapters import Adapters
from mpjax.generation.request import Plan, Request, make_plan
from mpjax.generation.rollout import Rollout
from mpjax.generation.sampling import SamplingRequest, plan_sampling
from mpjax.generation.stream import is_finished, write_video
from mpjax.models.quantization import Quantization
from mpjax.parallel.mesh import ONE_DEVICE, parse_mesh
from mpjax.stopping import stop_request
from mpjax.weights import Run, latest_step, load_run, read_run, with_quantization

Say = Callable[[str], None]

# With embeddings, a plan takes some 10 MB a prompt. Those of further videos are checked first and made again later.
KEPT_PLANS = 16


def generate(args: argparse.Namespace, say: Say = print) -> None:
    """Runs the verb; `args` are those of `__main__.parser`.

    With `--prompts` video i goes to `OUT/000i.mp4` and has the seed `--seed + i`. SIGTERM and Ctrl-C stop after a
    segment and leave a playable partial video.

    Raises:
        InputError: before anything is computed or written.
        Stopped: such a signal left videos unfinished.
    """
    if args.prompts is not None and args.prompt:
        raise InputError("--prompt and --prompts both say what happens: leave one of them out")
    many = args.prompts is not None
    schedules = read_prompts(args.prompts) if many else [tuple(args.prompt or ())]
    sampling = SamplingRequest(
        sampler=args.sampler,
        steps=args.steps,
        shift=args.shift,
        guidance=args.guidance,
        negative=args.negative,
        distilled_guidance=args.distilled_guidance,
        teacache=args.teacache,
    )
    requests = [
        Request(
            prompts=schedule,
            image=args.image,
            video=args.video,
            seconds=args.seconds,
            seed=args.seed + number,
            least=args.least,
            sampling=sampling,
            encoders=args.encoders,
        )
        for number, schedule in enumerate(schedules)
    ]
    outs = [args.out / f"{number:04d}.mp4" for number in range(len(schedules))] if many else [args.out]
    _check_out(args.out, many)
    mesh = parse_mesh(args.mesh) if args.mesh else ONE_DEVICE
    mesh.build()  # refuses other devices than there are
    adapters = Adapters.parse(args.lora, args.lora_live)
    quantization = None if args.quantize is None else Quantization.parse(args.quantize)
    run, step = with_size(read_run(args.weights), args.size, args.image), latest_step(args.weights)
    run = adapters.known_to(with_quantization(run, quantization))

    plans: dict[Path, Plan] = {}
    for request, out in zip(requests, outs, strict=True):
        plan = make_plan(run, step, request)
        is_finished(plan, out)
        if len(plans) < KEPT_PLANS:
            plans[out] = plan

    @functools.cache
    def load() -> Rollout:
        trained = load_run(args.weights, step, mesh, quantization)
        return Rollout.of(adapters.put_on(trained), plan_sampling(run, sampling), offload=args.offload)

    with stop_request() as stopping:
        for request, out in zip(requests, outs, strict=True):
            if stopping.is_set():
                raise stopping.stopped()
            timing = out.with_name(out.name + ".timing.json") if args.timing else None
            plan = plans.pop(out) if out in plans else make_plan(run, step, request)
            if not write_video(run, load, plan, out, stopping=stopping, say=say, timing=timing).finished:
                raise stopping.stopped()


def with_size(run: Run, size: str | tuple[int, int] | None, image: Path | None) -> Run:
    """A run whose videos have another size.

    Args:
        run: the run.
        size: (height, width) in pixels, `auto` for the bucket of FramePack nearest to a picture, None for the run's.
        image: the picture.

    Raises:
        InputError: `auto` without a picture, a size that codec or patches do not divide, or a network with encoders of
            its own, which were trained at one size.
    """
    if size is None or size == (run.height, run.width):
        return run
    if run.model.encoders is not None:
        raise InputError(f"{run.folder} has encoders of its own, trained at {run.height}x{run.width}: leave --size out")
    if isinstance(size, str):
        if image is None:
            raise InputError("--size=auto goes by the shape of a picture: add --image, or give HEIGHTxWIDTH")
        size = nearest_bucket(*picture_size(image))
    unit = run.codec.space_factor * run.model.patch
    if min(size) < 1 or size[0] % unit or size[1] % unit:
        raise InputError(f"--size is {size[0]}x{size[1]}: give multiples of {unit}")
    return dataclasses.replace(run, height=size[0], width=size[1])


def read_prompts(path: Path) -> list[tuple[str, ...]]:
    """A video a line: plain text, or a JSON list of prompts, one a segment. Empty lines are left out.

    Raises:
        InputError: the file cannot be read, has no prompt, or a line starts a list that is none of strings.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give --prompts a text file, a video a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: give --prompts a text file, a video a line") from error
    schedules = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        prompts: object = [line.strip()]
        if line.lstrip().startswith("["):
            try:
                prompts = json.loads(line)
            except ValueError:
                prompts = None
        if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise InputError(
                f'{path}:{number} starts with "[" but is no JSON list of prompts: write ["first", "second"]'
            )
        schedules.append(tuple(prompts))
    if not schedules:
        raise InputError(f"{path} holds no prompt: write a video a line")
    return schedules


def _check_out(out: Path, many: bool) -> None:
    if many and out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, but --prompts makes many videos: give a folder as --out")
    if not many and (out.is_dir() or out.suffix.lower() != ".mp4"):
        raise InputError(f"--out is {out}: give a file name that ends in .mp4")
