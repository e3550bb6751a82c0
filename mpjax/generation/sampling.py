"""How segments are drawn: what the run's config says, and what a user changes about it for one video."""

import dataclasses
import math
from typing import get_args

from mpjax.conditioning.tokens import encode_prompt
from mpjax.diffusion.guidance import ClassifierFree
from mpjax.diffusion.samplers import Sampler
from mpjax.errors import InputError
from mpjax.models.teacache import TeaCache
from mpjax.weights import Run

SAMPLERS: dict[str, type[Sampler]] = {cls.kind: cls for cls in get_args(Sampler)}
DYNAMIC = "dynamic"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingRequest:
    """Changes to the sampling of a run, as the user asks for them; None leaves what the run's config says.

    Attributes:
        sampler: `euler` or `unipc`.
        steps: network evaluations a segment, twice as many where classifier-free guidance is active.
        shift: time shift of the sampler, above 0, or `dynamic`: by the number of tokens.
        guidance: scale of classifier-free guidance, at least 1, which switches it off.
        negative: prompt that classifier-free guidance leads away from; None is the empty prompt.
        distilled_guidance: the guidance scale that a network with `guidance_embeds` reads, above 0.
        teacache: threshold of `models.teacache`, at least 0; None runs every block at every step.
    """

    sampler: str | None = None
    steps: int | None = None
    shift: float | str | None = None
    guidance: float | None = None
    negative: str | None = None
    distilled_guidance: float | None = None
    teacache: float | None = None

    def __post_init__(self):
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise InputError(f"sampler is {self.sampler}: it must be one of {', '.join(SAMPLERS)}")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"steps is {self.steps}: give at least 1")
        if self.shift not in (None, DYNAMIC) and (isinstance(self.shift, str) or not _above_zero(self.shift)):
            raise InputError(f"shift is {self.shift}: give a number above 0, or {DYNAMIC}")
        if self.guidance is not None and not (self.guidance >= 1 and math.isfinite(self.guidance)):
            raise InputError(f"guidance is {self.guidance:g}: give at least 1, which switches it off")
        if self.distilled_guidance is not None and not _above_zero(self.distilled_guidance):
            raise InputError(f"distilled_guidance is {self.distilled_guidance:g}: give a number above 0")
        if self.teacache is not None and not (self.teacache >= 0 and math.isfinite(self.teacache)):
            raise InputError(f"teacache is {self.teacache:g}: give a threshold of at least 0, for example 0.15")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """The same, definite.

    Attributes:
        sampler, classifier_free: see there.
        distilled_guidance: as `experiment.Experiment.guidance`.
        negative: the negative prompt.
        cache: which blocks are left out, if any.
    """

    sampler: Sampler
    classifier_free: ClassifierFree
    distilled_guidance: float
    negative: str
    cache: TeaCache | None = None


def plan_sampling(run: Run, request: SamplingRequest) -> SamplingPlan:
    """What a run's config and a request make together.

    Raises:
        InputError: the request names what this run has not, or what would have no effect.
    """
    if request.distilled_guidance is not None and not run.model.guidance_embeds:
        raise InputError(
            "--distilled-guidance needs a network with model.guidance_embeds, which this run has not: "
            "use --guidance for classifier-free guidance"
        )
    classifier_free = run.network.classifier_free
    if request.guidance is not None:
        classifier_free = dataclasses.replace(classifier_free, scale=request.guidance)
    if request.negative is not None:
        if not classifier_free.active:
            raise InputError("--negative has no effect at a guidance scale of 1: add --guidance with a scale above 1")
        if run.model.encoders is not None:
            encode_prompt(request.negative, run.model.encoders.prompt_bytes)
    guidance = request.distilled_guidance
    return SamplingPlan(
        sampler=_sampler(run.network.sampler, request),
        classifier_free=classifier_free,
        distilled_guidance=run.network.guidance if guidance is None else guidance,
        negative=request.negative or "",
        cache=None if request.teacache is None else TeaCache(threshold=request.teacache),
    )


def _sampler(sampler: Sampler, request: SamplingRequest) -> Sampler:
    """The run's own with what the request changes; another kind keeps its grid."""
    cls = type(sampler) if request.sampler is None else SAMPLERS[request.sampler]
    if cls is not type(sampler):
        sampler = cls(steps=sampler.steps, shift=sampler.shift)
    if request.steps is not None:
        sampler = dataclasses.replace(sampler, steps=request.steps)
    if request.shift is not None:
        shift = None if request.shift == DYNAMIC else float(request.shift)
        sampler = dataclasses.replace(sampler, shift=shift)
    return sampler


def _above_zero(value: float) -> bool:
    return value > 0 and math.isfinite(value)
