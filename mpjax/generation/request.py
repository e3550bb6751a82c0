"""What was asked for, checked and made definite before anything is computed."""

import dataclasses
import hashlib
import json
import math
from numbers import Integral, Real
from pathlib import Path

import jax
import numpy as np

from mpjax import config
from mpjax.codecs import pixel_frames
from mpjax.conditioning.cache import content_key
from mpjax.errors import InputError
from mpjax.experiment import RecallWorldData
from mpjax.generation import given
from mpjax.generation.conditioner import check_prompt, check_text, conditioner_of
from mpjax.generation.first_frame import held_out, latents_of, read_picture, shown
from mpjax.generation.sampling import SamplingPlan, SamplingRequest, plan_sampling
from mpjax.models.memorypack import Prompts
from mpjax.weights import Run

SEEDS = 1 << 32


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One video, as the user asks for it.

    Attributes:
        prompts: one a segment that is generated, the last one goes on. Empty: the words that belong to the first frame
            (RecallWorld: what happens next; clips: the caption), or no words where the first frame is the user's.
        image: first frame, a file (of a video its first frame) or uint8 `[H, W, 3]`.
        video: clip to continue. Neither: a held-out first frame of the run's dataset, chosen by `seed`.
        seconds: length of the whole video, the clip included.
        seed: of the noise, 0 to 2^32 - 1.
        least: pixels that the shorter side of the written video has at least.
        sampling: changes to how the run draws segments.
        encoders: folder of LLaMA, CLIP and SigLIP, for a network without encoders of its own.
    """

    prompts: tuple[str, ...] = ()
    image: str | Path | np.ndarray | None = None
    video: Path | None = None
    seconds: float = 5.0
    seed: int = 0
    least: int = 256
    sampling: SamplingRequest = SamplingRequest()
    encoders: Path | None = None

    def __post_init__(self):
        for prompt in self.prompts:
            check_text(prompt)
        for name, types in (("seconds", Real), ("seed", Integral), ("least", Integral)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, types):
                raise InputError(f"{name} is {value!r}: give a {'number' if types is Real else 'whole number'}")
        if self.image is not None and self.video is not None:
            raise InputError("image and video both give the first frame: leave one of them out")
        if not (self.seconds > 0 and math.isfinite(self.seconds)):
            raise InputError(f"seconds is {self.seconds:g}: give a length above 0")
        if not 0 <= self.seed < SEEDS:
            raise InputError(f"seed is {self.seed}: give a whole number from 0 to {SEEDS - 1}")
        if self.least < 1:
            raise InputError(f"least is {self.least}: give at least 1 pixel")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """One video, definite: with the weights it determines every byte of the file.

    Attributes:
        fps: frames per second.
        frames: pixel frames of the whole video.
        segment_frames: pixel frames of a segment.
        prompts: one a segment from the first one on, given ones included; the last one goes on.
        conditions: what the network reads of each of them: bytes int32 `[l]`, or embeddings, a `Condition`.
        negative: the same of the negative prompt; None where classifier-free guidance is off.
        reference: latents of the first frame, float32 `[1, h, w, c]`.
        clip: video to continue, of which `given` whole segments are used.
        seed, least: as in `Request`.
        sampling: how segments are drawn.
        backwards: the last segment is generated first.
        step: updates that made the weights.
        fingerprint: a hash of all this, of the run and of the clip.
    """

    fps: float
    frames: int
    segment_frames: int
    prompts: tuple[str, ...]
    conditions: tuple[Prompts, ...]
    negative: Prompts | None
    reference: np.ndarray
    clip: Path | None
    given: int
    seed: int
    least: int
    sampling: SamplingPlan
    backwards: bool
    step: int
    fingerprint: str

    @property
    def segments(self) -> int:
        """Segments after the first frame; the last one may be cut."""
        return -(-(self.frames - 1) // self.segment_frames)

    def prompt(self, done: int) -> Prompts:
        """What the network reads of the prompt of the next segment, when `done` segments exist.

        Prompts come in the order of the video, also where that is generated from its end.
        """
        segment = self.segments - 1 - done if self.backwards else done
        return self.conditions[min(max(segment, 0), len(self.conditions) - 1)]


def make_plan(run: Run, step: int, request: Request) -> Plan:
    """Turns a request into a plan for the weights of update `step`.

    Raises:
        InputError: a prompt, the picture, the clip, the length or a change to the sampling cannot be used.
    """
    for prompt in request.prompts:  # the cheapest checks first, before any file is read
        check_prompt(run, prompt)
    condition = conditioner_of(run, request.encoders)
    sampling = plan_sampling(run, request.sampling)
    frames = round(request.seconds * run.fps)
    if frames < 1:
        raise InputError(f"seconds is {request.seconds:g}, less than one frame: give at least {1 / run.fps:g}")
    if run.model.framepack.backwards and frames < 2:
        raise InputError(f"seconds is {request.seconds:g}, a single frame: give more than {1 / run.fps:g}")
    segment_frames = pixel_frames(run.codec, 1 + run.model.framepack.segment_frames) - 1
    _check_prompts(run, request, frames, segment_frames, 0)
    count, clip_hash = 0, None
    own: tuple[str, ...] = ("",)
    if request.video is None and request.image is None:
        reference, own = held_out(run, request.seed)
        picture = shown(run, reference)
    elif run.experiment is not None and isinstance(run.experiment.data, RecallWorldData):
        own = held_out(run, request.seed)[1]
    if request.image is not None:
        picture = read_picture(run, request.image)
        reference = latents_of(run, picture)
    if request.video is not None:
        if run.model.framepack.backwards:
            raise InputError(f"{run.folder} generates videos from their end: --video cannot be continued, give --image")
        count = given.whole_segments(run, request.video, segment_frames, frames)
        _check_prompts(run, request, frames, segment_frames, count)
        clip_hash = given.file_hash(request.video)
        picture = given.first_pixels(run, request.video)[0]
        reference = latents_of(run, picture)
    prompts = (request.prompts[:1] * count + request.prompts) or own
    identity = {
        "run": run.identity,
        "step": step,
        "frames": frames,
        "prompts": prompts,
        "reference": hashlib.sha256(np.ascontiguousarray(reference).tobytes()).hexdigest(),
        "clip": clip_hash,
        "seed": request.seed,
        "least": request.least,
    }
    known = {prompt: condition(prompt, picture) for prompt in dict.fromkeys(prompts)}
    if run.model.encoders is None:
        # The embeddings themselves: it does not matter which folder they are from.
        parts = jax.tree.leaves(list(known.values()))
        identity["embeddings"] = content_key(*(np.asarray(part) for part in parts))
    if sampling != plan_sampling(run, SamplingRequest()):  # the run's own is part of the run
        identity["sampling"] = config.to_dict(sampling)
    return Plan(
        fps=run.fps,
        frames=frames,
        segment_frames=segment_frames,
        prompts=prompts,
        conditions=tuple(known[prompt] for prompt in prompts),
        negative=condition(sampling.negative, picture) if sampling.classifier_free.active else None,
        reference=reference,
        clip=request.video,
        given=count,
        seed=request.seed,
        least=request.least,
        sampling=sampling,
        backwards=run.model.framepack.backwards,
        step=step,
        fingerprint=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32],
    )


def _check_prompts(run: Run, request: Request, frames: int, segment_frames: int, given: int) -> None:
    """Prompts of segments that will not be: dropped in silence, they would be missed in the video."""
    segments = max(-(-(frames - 1) // segment_frames) - given, 1)
    if (count := len(request.prompts)) > segments:
        length = f"{segments} segment{'s' if segments > 1 else ''} of {segment_frames / run.fps:g} s"
        after = " after the clip" if given else ""
        raise InputError(
            f"{count} prompts, but {request.seconds:g} s {'is' if segments == 1 else 'are'} {length}{after}: raise "
            "seconds, or leave prompts out"
        )
