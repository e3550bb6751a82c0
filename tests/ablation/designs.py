"""An ablation and results for tests, without a network."""

from mpjax import config
from mpjax.ablation.cells import make_cell
from mpjax.ablation.design import Ablation
from mpjax.ablation.measure import result_path
from mpjax.whole_files import write_json

TINY = f"{config.find('drift_tiny.py')}:smoke"


def base_fields():
    return config.load(TINY).to_dict()


def design(**changes):
    """A base, two arms that go on from it, and one that does not; drift and no timing."""
    fields = {
        "base": base_fields(),
        "arms": [
            {"name": "base"},
            {"name": "teacher", "init": "base", "panel": "*"},
            {"name": "direct", "init": "base", "overrides": stage(forcing={"kind": "direct"}), "x": {"steps": 1}},
            {"name": "student", "overrides": stage(forcing={"kind": "student", "steps": 2}), "x": {"steps": 2}},
        ],
        "reference": "teacher",
        "seeds": [0, 1],
        "drift": [{"segments": 8, "clips": 4}],
        "timing_pairs": 0,
        **changes,
    }
    return config.build(Ablation, fields)


def stage(**fields):
    return {"training": {"stages": {"0": fields}}}


def mean(value, half=0.01):
    return {"mean": value, "ci95": [value - half, value + half]}


def drift_report(level, segments=8):
    slope = {"per_minute": level, "ci95": [level / 2, level * 2], "method": ""}
    return {
        "slope": slope,
        "error": {"early": mean(level), "late": mean(2 * level), "slope": slope, "window_segments": 4},
        "contrast": {name: mean(level) for name in ("off_manifold", "gain", "psnr")},
        "survival": {"survived": 0.5, "horizon_seconds": 8.0},
        "identity": [{"segment": n, **mean(0.9)} for n in range(segments)],
        "off_manifold_by_segment": [{"segment": n, **mean(level * (1 + n))} for n in range(segments)],
        "exposure_gap": [{"segment": n, **mean(level * n)} for n in range(segments)],
        "motion": {"speed_ratio": mean(1.0), "dead_motion": mean(0.0)},
        "clips": 4,
    }


def recall_report(rate, gaps=(0, 2)):
    def share(value):
        return {"n": 100, "rate": value, "ci95": [value - 0.05, value + 0.05], "chance": 0.0625}

    return {
        "gaps": [{"gap": gap, "beyond_reach": gap >= 2, **share(rate)} for gap in gaps],
        "beyond_reach": share(rate),
        "attributes": {"colour": share(rate), "shape": share(rate)},
        "hallucination": {"n": 100, "rate": 0.0, "ci95": [0.0, 0.03]},
        "half_life": None,
        "slots": None,
    }


def result(cell, level=None):
    """What a cell could have left; its level of drift depends on arm and seed."""
    level = 0.1 * (1 + len(cell.arm.name)) + 0.01 * cell.seed if level is None else level
    return {
        "arm": cell.arm.name,
        "seed": cell.seed,
        "fingerprint": cell.fingerprint,
        "commit": "abc",
        "command": "python -m mpjax ablate",
        "versions": {"jax": "1"},
        "machine": {"cores": 2},
        "updates": cell.experiment.training.stages[0].steps,
        "parameters": 1234,
        "memory_bytes": 0,
        "seconds_per_update_with_compile": 0.1,
        "held_out_loss": level,
        "forwards_per_update": 3.0,
        "recall": {evaluation.name: recall_report(level, evaluation.gaps) for evaluation, _ in cell.recall},
        "drift": {evaluation.name: drift_report(level) for evaluation, _ in cell.drift},
        "drift_curve": {},
        "peak_rss_mb_of_process": 100.0,
    }


def leave_result(cell, run, level=None):
    write_json(result_path(cell, run), result(cell, level))


def cells_of(ablation):
    return [make_cell(ablation, arm, seed) for arm in ablation.arms for seed in ablation.seeds]


def times(ratio):
    return {
        "ratio": ratio,
        "ci95": [ratio - 0.01, ratio + 0.01],
        "pairs": 6,
        "reference_ms": 10.0,
        "other_ms": 10.0 * ratio,
        "reference_forwards": 3.0,
        "other_forwards": 3.0,
    }
