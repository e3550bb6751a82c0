"""The verb `recall`: measures a run that was trained on RecallWorld and writes table, numbers and picture."""

import argparse
import csv
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mpjax import config, drawing
from mpjax.data.filmstrip import filmstrip, png, stack
from mpjax.data.recallworld.leaks import find_leaks
from mpjax.data.recallworld.scenes import SCENES
from mpjax.data.recallworld.world import OF_SOME_SCENES, World
from mpjax.errors import InputError
from mpjax.evaluation import report_figures
from mpjax.evaluation.controls import CONTROLS
from mpjax.evaluation.drift import evaluate_drift
from mpjax.evaluation.recall import RecallResult, evaluate_recall
from mpjax.evaluation.self_recall import evaluate_self_recall
from mpjax.experiment import RecallWorldData
from mpjax.models.memorypack import Denoiser
from mpjax.weights import load_run, read_run

Say = Callable[[str], None]

STRIP_FRAMES = 40  # a longer strip is thinned out


def recall(args: argparse.Namespace, say: Say = print) -> None:
    """Runs the verb; `args` are those of `__main__.parser`.

    Raises:
        InputError: before anything is computed or written.
    """
    gaps = parse_gaps(args.gaps)
    if args.clips < 1 or args.segments < 1 or args.seed < 0:
        raise InputError(
            f"--clips {args.clips}, --segments {args.segments}, --seed {args.seed}: use 1, 1 and 0 or more"
        )
    if args.control not in CONTROLS:
        raise InputError(f"--control {args.control}: choose one of {', '.join(CONTROLS)}")
    world = _world(args.weights, args.scene)
    if not world.has_return and (args.control != "none" or args.self_recall):
        raise InputError(f"scene {world.scene} has no return: leave --control and --self-recall out")
    out = args.out or args.weights / "recall"
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give --out a folder")
    if world.has_return:  # refuse what does not fit before the weights are read
        control = CONTROLS[args.control]
        control.gaps(control.world(world), gaps)
    trained = load_run(args.weights)
    network = trained.run.network
    model = (Denoiser(network.model, network.guidance), network.sampler, trained.params, world)
    head = {"weights": str(args.weights), "step": trained.step, "world": config.to_dict(world), "seed": args.seed}
    if not world.has_return:
        result = evaluate_drift(
            *model,
            segments=args.segments,
            clips=args.clips,
            seed=args.seed,
            classifier_free=network.classifier_free,
        )
        report = result.report
        _write(out, {**head, **report}, report["off_manifold_by_segment"])
        every = -(-len(result.truth) // STRIP_FRAMES) | 1  # odd: what returns after two frames is not hidden
        strip = filmstrip([result.truth[::every], result.generated[::every]], least=32)
        figure = report_figures.drift_figure({world.scene: report})
        say(drift_table(report))
    else:
        found = evaluate_recall(
            *model,
            gaps=gaps,
            clips_per_gap=args.clips,
            seed=args.seed,
            classifier_free=network.classifier_free,
            control=CONTROLS[args.control],
            say=say,
        )
        report = found.report
        report["world_leaks"] = find_leaks(CONTROLS[args.control].world(world), args.seed, world.entries + 2, 1)
        if args.self_recall:
            report["self_recall"] = evaluate_self_recall(
                *model,
                gaps=gaps,
                clips_per_gap=args.clips,
                seed=args.seed,
                classifier_free=network.classifier_free,
                say=say,
            )
        _write(out, {**head, **report}, _rows(report))
        strip = _strip(found)
        figure = report_figures.recall_figure({world.scene: report})
        say(recall_table(report))
    (out / "recall.png").write_bytes(png(stack([drawing.png(figure), png(strip)])))
    say(f"{out}: recall.json, recall.csv, recall.png")


def parse_gaps(text: str) -> tuple[int, ...]:
    """`0,1,2` → the gaps, rising and without repeats.

    Raises:
        InputError: something else than whole numbers from 0 on.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--gaps {text}: give whole numbers from 0 on with commas between them, for example 0,1,2,4")
    return tuple(sorted({int(part) for part in parts}))


def recall_table(report: dict) -> str:
    """A recall report as lines of text: a row for each gap, then the verdicts."""
    lines = [f"{'gap':>4} {'clips':>6} {'recall':>7}  {'95 % interval':<15} {'reach':<7} {'off [px]':>8} {'PSNR':>6}"]
    for row, place, quality in zip(report["gaps"], report["position"], report["psnr"], strict=True):
        lines.append(
            f"{row['gap']:>4} {row['n']:>6} {row['rate']:>7.3f}  {_interval(row['ci95']):<15} "
            f"{'beyond' if row['beyond_reach'] else 'within':<7} {place['mean']:>8.2f} {quality['mean']:>6.1f}"
        )
    lines.append(f"chance {report['beyond_reach']['chance']:.4f}")
    far = report["beyond_reach"]
    if far["rate"] is not None:
        test = "at chance, as without memory" if report["leak_test"]["passed"] else "not at chance"
        lines.append(f"beyond reach {far['rate']:.3f} {_interval(far['ci95'])}: {test}")
    if report["slots"] is not None:
        lines.append(
            f"the other toy {report['slots']['swap']['rate']:.3f} {_interval(report['slots']['swap']['ci95'])}"
        )
    if report["timing"] is not None:
        lines += [
            f"gap {row['gap']}: off by {row['mean']:.2f} frames {_interval(row['ci95'])}" for row in report["timing"]
        ]
    for row in report.get("self_recall", ()):
        lines.append(
            f"gap {row['gap']}: agrees with its own reveal {row['rate']:.3f} {_interval(row['ci95'])}, "
            f"independent draws {row['independent']:.3f}"
        )
    if report["control"]["kind"] != "none":
        met = {None: "no prediction", True: "as predicted", False: "NOT as predicted"}[report["control"]["met"]]
        lines.append(f"control {report['control']['kind']}: {met} ({report['control']['expects']})")
    lines += [f"leak in the world: {leak}" for leak in report.get("world_leaks", ())]
    return "\n".join(lines)


def drift_table(report: dict) -> str:
    """A drift report as lines of text."""
    slope, rows = report["slope"], report["off_manifold_by_segment"]
    lines = [
        f"{report['clips']} clips, {report['generated_segments']} segments after {report['given_segments']} given ones",
        f"R per minute {slope['per_minute']:.4f} {_interval(slope['ci95'], 4)}",
        f"R first segment {rows[0]['mean']:.4f}, last {rows[-1]['mean']:.4f} {_interval(rows[-1]['ci95'], 4)}",
        f"right toy in the last segment {report['identity'][-1]['mean']:.3f}",
    ]
    lines += [_mean_line(name, report["motion"][name]) for name in ("speed_ratio", "dead_motion", "position_error")]
    for name, value in report.get("obedience", {}).items():
        lines.append(_mean_line(name, value))
    return "\n".join(lines)


def _mean_line(name: str, value: dict | None) -> str:
    label = name.replace("_", " ")
    return f"{label}: not defined here" if value is None else f"{label} {value['mean']:.3f} {_interval(value['ci95'])}"


def _interval(ends: Sequence[float], digits: int = 3) -> str:
    return f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def _world(weights: Path, scene: str | None) -> World:
    run = read_run(weights)
    data = run.experiment.data if run.experiment else None
    if not isinstance(data, RecallWorldData):
        raise InputError(f"{weights} was not trained on RecallWorld: give a run whose data.kind is 'recallworld'")
    if scene is None:
        return data.world
    if scene not in SCENES:
        raise InputError(f"--scene {scene}: choose one of {', '.join(SCENES)}")
    defaults = World()
    foreign = [name for name in OF_SOME_SCENES if name not in SCENES[scene].fields]
    return dataclasses.replace(data.world, scene=scene, **{name: getattr(defaults, name) for name in foreign})


def _rows(report: dict) -> list[dict]:
    """One flat row for each gap."""
    return [
        {**row, "position_error_px": place["mean"], "psnr_db": quality["mean"]}
        for row, place, quality in zip(report["gaps"], report["position"], report["psnr"], strict=True)
    ]


def _strip(result: RecallResult) -> np.ndarray:
    """For each gap the true video above, and below it the generated return."""
    rows: list[np.ndarray] = []
    for gap, truth in result.truth.items():
        truth, drawn = truth[-STRIP_FRAMES:], result.generated[gap][-STRIP_FRAMES:]
        rows += [truth, np.concatenate([np.ones((len(truth) - len(drawn), *drawn.shape[1:]), drawn.dtype), drawn])]
    return filmstrip(rows, least=32)


def _write(out: Path, report: dict, rows: Sequence[dict]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "recall.json").write_text(json.dumps(report, indent=1) + "\n")
    flat = [{key: value for key, value in row.items() if key != "ci95"} for row in rows]
    ends = [dict(zip(("ci95_low", "ci95_high"), row["ci95"], strict=True)) for row in rows]
    with (out / "recall.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=[*flat[0], *ends[0]])
        writer.writeheader()
        writer.writerows({**row, **end} for row, end in zip(flat, ends, strict=True))
