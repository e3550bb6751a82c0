"""What a run's config and a user's changes make together."""

import dataclasses

import pytest

from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Euler, UniPC
from mpjax.errors import InputError
from mpjax.generation.sampling import SamplingPlan, SamplingRequest, plan_sampling


def with_config(run, *, guidance_embeds=False, **fields):
    model = dataclasses.replace(run.model, guidance_embeds=guidance_embeds)
    return dataclasses.replace(run, network=dataclasses.replace(run.network, model=model, **fields))


def test_without_changes_it_is_as_the_config_says(trained):
    plan = plan_sampling(trained.run, SamplingRequest())
    assert plan == SamplingPlan(sampler=Euler(steps=2), classifier_free=UNGUIDED, distilled_guidance=1.0, negative="")
    sampler, guidance = UniPC(steps=7, shift=None, variant="bh2"), ClassifierFree(scale=2.0, rescale=0.5)
    run = with_config(trained.run, sampler=sampler, classifier_free=guidance, guidance=6.0)
    plan = plan_sampling(run, SamplingRequest())
    assert plan == SamplingPlan(sampler=sampler, classifier_free=guidance, distilled_guidance=6.0, negative="")


@pytest.mark.parametrize(
    ("own", "request_", "wanted"),
    [
        (Euler(steps=4, shift=3.0), {"steps": 9}, Euler(steps=9, shift=3.0)),
        (Euler(steps=4, shift=3.0), {"sampler": "unipc"}, UniPC(steps=4, shift=3.0)),
        (Euler(steps=4, shift=3.0), {"shift": "dynamic"}, Euler(steps=4, shift=None)),
        (Euler(steps=4, shift=None), {"shift": 7}, Euler(steps=4, shift=7.0)),
        (UniPC(steps=4, variant="bh2"), {"sampler": "unipc", "steps": 5}, UniPC(steps=5, variant="bh2")),
        (UniPC(steps=4, shift=2.0), {"sampler": "euler", "shift": 5.0}, Euler(steps=4, shift=5.0)),
    ],
)
def test_a_change_leaves_the_rest_of_the_sampler(trained, own, request_, wanted):
    assert plan_sampling(with_config(trained.run, sampler=own), SamplingRequest(**request_)).sampler == wanted


def test_guidance_keeps_the_rescale_and_may_be_switched_off(trained):
    run = with_config(trained.run, classifier_free=ClassifierFree(scale=2.0, rescale=0.5))
    request = SamplingRequest(guidance=4.0, negative="a")
    plan = plan_sampling(run, request)
    assert plan.classifier_free == ClassifierFree(scale=4.0, rescale=0.5) and plan.negative == "a"
    assert plan_sampling(run, SamplingRequest(negative="a")).classifier_free.scale == 2.0
    assert not plan_sampling(run, SamplingRequest(guidance=1.0)).classifier_free.active
    with pytest.raises(InputError, match=r"--negative has no effect .* add --guidance"):
        plan_sampling(run, SamplingRequest(guidance=1.0, negative="a"))


def test_distilled_guidance_is_for_networks_that_read_it(trained):
    run = with_config(trained.run, guidance_embeds=True, guidance=10.0)
    assert plan_sampling(run, SamplingRequest(distilled_guidance=6.0)).distilled_guidance == 6.0
    with pytest.raises(InputError, match=r"--distilled-guidance needs .* use --guidance"):
        plan_sampling(trained.run, SamplingRequest(distilled_guidance=6.0))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"sampler": "heun"}, "sampler is heun: it must be one of euler, unipc"),
        ({"steps": 0}, "steps is 0"),
        ({"shift": 0.0}, "shift is 0.0"),
        ({"shift": float("nan")}, "shift is nan"),
        ({"shift": "static"}, "shift is static: give a number above 0, or dynamic"),
        ({"guidance": 0.9}, "guidance is 0.9"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"distilled_guidance": 0.0}, "distilled_guidance is 0"),
        ({"teacache": -0.1}, "teacache is -0.1"),
    ],
)
def test_what_cannot_be_used_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        SamplingRequest(**fields)
