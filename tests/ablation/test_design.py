"""What an ablation may say, and how an arm changes the base."""

import pytest

from configs.ablations import forcing_t0, memory_t0, rope_t0
from mpjax import config
from mpjax.ablation.cells import arm_experiment, check_shapes, make_cell, scaled
from mpjax.ablation.design import Ablation, load, merged
from mpjax.errors import InputError
from mpjax.experiment import fingerprint
from tests.ablation.designs import base_fields, design, stage


def test_merged_goes_into_groups_and_lists_and_replaces_another_kind():
    fields = {"a": {"b": 1, "c": 2}, "list": [{"x": 1}, {"x": 2}], "forcing": {"kind": "student", "steps": 5}}
    assert merged(fields, {"a": {"c": 3}}) == {**fields, "a": {"b": 1, "c": 3}}
    assert merged(fields, {"list": {"1": {"x": 9}}})["list"] == [{"x": 1}, {"x": 9}]
    assert merged(fields, {"list": [{"x": 9}]})["list"] == [{"x": 9}]
    assert merged(fields, {"forcing": {"steps": 7}})["forcing"] == {"kind": "student", "steps": 7}
    assert merged(fields, {"forcing": {"kind": "direct"}})["forcing"] == {"kind": "direct"}
    assert merged(fields, {"a": None})["a"] is None and merged({"a": None}, {"a": {"b": 1}}) == {"a": {"b": 1}}
    with pytest.raises(InputError, match="'2' is no entry of a list of 2"):
        merged(fields, {"list": {"2": {}}})


def test_an_arm_changes_what_it_says_and_nothing_else():
    ablation = design()
    plain = arm_experiment(ablation, ablation.arm("base"), 0)
    assert fingerprint(plain) == fingerprint(config.build(type(plain), base_fields()))
    student = arm_experiment(ablation, ablation.arm("student"), 1)
    assert student.seed == 1 and student.training.stages[0].forcing.steps == 2
    assert student.model == plain.model and student.training.stages[0].optimizer == plain.training.stages[0].optimizer


def test_scaled_keeps_the_shares_of_warmup_and_curriculum():
    ablation = design(arms=[{"name": "a", "overrides": stage(steps=100, curriculum=[(0, 2), (50, 4)])}], reference="a")
    trained = arm_experiment(ablation, ablation.arm("a"), 0)
    half = scaled(trained, 2.0).training.stages[0]
    assert (half.steps, half.curriculum) == (50, ((0, 2), (25, 4)))
    assert half.optimizer.warmup_steps == round(trained.training.stages[0].optimizer.warmup_steps / 2)
    assert scaled(trained, 1.0) == trained


def test_a_fingerprint_knows_training_measuring_and_start():
    ablation = design()
    marks = {make_cell(ablation, arm, seed).fingerprint for arm in ablation.arms for seed in ablation.seeds}
    assert len(marks) == 8
    cell = make_cell(ablation, ablation.arm("teacher"), 0)
    longer = design(drift=[{"segments": 9, "clips": 4}])
    assert make_cell(longer, longer.arm("teacher"), 0).fingerprint != cell.fingerprint
    arms = [{"name": "base", "overrides": stage(steps=21)}, {"name": "teacher", "init": "base"}]
    other = design(arms=arms)
    assert make_cell(other, other.arm("teacher"), 0).fingerprint != cell.fingerprint
    renamed = design(arms=[{"name": "base"}, {"name": "teacher", "init": "base", "panel": "x", "x": {"n": 1}}])
    assert make_cell(renamed, renamed.arm("teacher"), 0).fingerprint == cell.fingerprint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": []}, "arms is empty"),
        ({"arms": [{"name": "a"}, {"name": "a"}]}, "arms has 'a' twice"),
        ({"arms": [{"name": "a/b"}]}, "name is 'a/b'"),
        ({"seeds": [1, 1]}, "seeds has '1' twice"),
        ({"reference": "nobody"}, "reference names arm 'nobody'"),
        ({"arms": [{"name": "teacher", "init": "no"}]}, "arm teacher: init names arm 'no'"),
        ({"arms": [{"name": "teacher", "init": "b"}, {"name": "b", "init": "teacher"}]}, "use one level"),
        ({"budget": "time"}, "budget is 'time'"),
        ({"budget": "wall_clock"}, "needs step times"),
        ({"timing_pairs": 3}, "timing_pairs is 3"),
        ({"drift": [{"segments": 8, "arms": ["no"]}]}, "evaluation drift: arms names arm 'no'"),
        ({"recall": [{"gaps": [0], "name": "drift"}]}, "has 'drift' twice"),
        ({"recall": [{"gaps": [0], "expects": "luck"}]}, "expects is 'luck'"),
        ({"forcing_claim": {"literal": "no"}}, "forcing_claim names arm 'no'"),
        ({"memory_claim": {"memory": "teacher", "none": "no"}}, "memory_claim names arm 'no'"),
        ({"sedes": [0]}, "did you mean seeds?"),
        ({"drift": [{"segments": 8, "given": 0}]}, "given and clips must be at least 1"),
        ({"memory_claim": {"memory": "teacher", "none": "base"}}, "memory_claim needs a recall evaluation"),
        (
            {
                "recall": [{"gaps": [2], "control": {"kind": "zero_start"}}],
                "memory_claim": {"memory": "teacher", "none": "base"},
            },
            "memory_claim needs a recall evaluation",
        ),
        (
            {"recall": [{"gaps": [2], "arms": ["base"]}], "memory_claim": {"memory": "teacher", "none": "base"}},
            "memory_claim needs evaluation recall of arm teacher",
        ),
        (
            {"drift": [{"segments": 8, "arms": ["direct"]}], "forcing_claim": {"literal": "direct"}},
            "forcing_claim needs evaluation drift of arm teacher",
        ),
        ({"forcing_claim": {"literal": "direct", "students": [["student", 2]]}}, "the curve of arm direct"),
    ],
)
def test_mistakes_of_a_design_are_named(changes, said):
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        design(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": [{"name": "teacher", "overrides": {"modell": {}}}]}, "arm teacher: config.modell is not a config"),
        ({"arms": [{"name": "teacher", "overrides": stage(forcing={"kind": "no"})}]}, "kind is 'no'"),
        ({"recall": [{"gaps": [0]}]}, "evaluation recall of arm teacher: recall needs"),
        ({"drift": [{"segments": 4, "world": {"balls": 2}}]}, "drift needs scene D1 with one ball"),
        ({"drift": [{"segments": 4, "world": {"segment_frames": 3}}]}, "evaluation drift of arm teacher: config.model"),
    ],
)
def test_mistakes_of_a_cell_are_named(changes, said):
    ablation = design(**{"arms": [{"name": "teacher"}], **changes})
    with pytest.raises(InputError, match=said):
        make_cell(ablation, ablation.arm("teacher"), 0)


def test_an_arm_may_train_an_adapter_of_what_another_left():
    styled = {"training": {"lora": {"rank": 2}, "stages": {"0": {"trainable": "lora"}}}}
    arms = [{"name": "teacher"}, {"name": "styled", "init": "teacher", "overrides": styled}]
    ablation = design(arms=arms)
    check_shapes([make_cell(ablation, arm, 0) for arm in ablation.arms])
    ablation = design(arms=[arms[0], {"name": "styled", "overrides": styled}])
    with pytest.raises(InputError, match=r"arm styled: training.lora .* name their arm in init"):
        check_shapes([make_cell(ablation, arm, 0) for arm in ablation.arms])


@pytest.mark.parametrize(
    ("module", "argument"),
    [
        (memory_t0, "full"),
        (memory_t0, "smoke"),
        (rope_t0, "full"),
        (rope_t0, "smoke"),
        *((forcing_t0, word) for word in ("aligned", "unaligned,rest", "anchored,students", "futures,memory", "smoke")),
    ],
)
def test_every_cell_of_the_shipped_ablations_is_valid(module, argument):
    ablation = load(f"{module.__file__}:{argument}", [])
    assert isinstance(ablation, Ablation)
    cells = [make_cell(ablation, arm, seed) for arm in ablation.arms for seed in ablation.seeds]
    assert len({cell.fingerprint for cell in cells}) == len(cells) >= 2
    with pytest.raises(InputError, match="unknown"):
        module.get_config("nonsense")


def test_words_of_an_argument_that_exclude_each_other_are_named():
    with pytest.raises(InputError, match="aligned and futures"):
        forcing_t0.get_config("aligned,futures")
