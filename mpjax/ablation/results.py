"""What an ablation writes: rows, cells, tables, figures, claims, provenance. Equal cells give equal bytes."""

from collections.abc import Sequence
from pathlib import Path

from mpjax.ablation.design import Ablation
from mpjax.ablation.figures import figures
from mpjax.ablation.rows import as_csv, rows_of
from mpjax.ablation.tables import summary
from mpjax.drawing import png
from mpjax.evaluation import claims, verdict
from mpjax.whole_files import write_file, write_json


def write_results(ablation: Ablation, results: Sequence[dict], step_times: dict[str, dict], out: Path) -> list[str]:
    """Writes everything into `out` and returns what to tell.

    Args:
        ablation: the design.
        results: the result of every cell.
        step_times: arm → `paired_step_times` over the reference.
        out: folder; files of the same names are replaced.
    """
    order = [arm.name for arm in ablation.arms]
    results = sorted(results, key=lambda result: (order.index(result["arm"]), result["seed"]))
    rows = [row for result in results for row in rows_of(result)]
    decided = decide(ablation, results, step_times)
    write_file(out / "rows.csv", as_csv(rows))
    write_json(out / "cells.json", {"step_times": step_times, "cells": results})
    write_file(out / "summary.md", summary(ablation, rows, step_times))
    for name, figure in figures(ablation, rows, results).items():
        write_file(out / f"{name}.png", png(figure))
    write_json(out / "claims.json", [verdict.as_json(claim) for claim in decided])
    write_file(out / "claims.md", verdict.as_markdown(decided))
    write_json(out / "provenance.json", provenance_of(ablation, results))
    lines = [f"{claim.key}: {claim.verdict}" for claim in decided]
    return [*lines, f"results: {out / 'summary.md'}"]


def decide(ablation: Ablation, results: Sequence[dict], step_times: dict[str, dict]) -> list[verdict.Claim]:
    """The claims that the ablation names arms for."""
    cells: dict[str, dict[int, dict]] = {}
    for result in results:
        cells.setdefault(result["arm"], {})[result["seed"]] = result
    decided = []
    if (memory := ablation.memory_claim) is not None:
        controls = [
            (arm.name, evaluation.name, evaluation.expects)
            for evaluation in ablation.recall
            if evaluation.expects
            for arm in ablation.arms
            if ablation.measures(evaluation, arm)
        ]
        assert ablation.main_recall is not None  # a design without it is refused
        decided.append(
            claims.memory_claim(
                cells,
                memory=memory.memory,
                none=memory.none,
                evaluation=ablation.main_recall.name,
                slots=memory.slots,
                controls=controls,
            )
        )
    if (forcing := ablation.forcing_claim) is not None:
        teacher = ablation.reference
        for name in [drift.name for drift in ablation.drift]:
            decided.append(claims.drift_claim(cells, arm=forcing.literal, teacher=teacher, evaluation=name))
            if forcing.recipe:
                recipe = dict(arm=forcing.recipe, teacher=teacher, evaluation=name)
                decided += [claims.drift_claim(cells, **recipe), claims.recipe_claim(cells, step_times, **recipe)]
            if forcing.students:
                decided.append(
                    claims.student_claim(
                        cells,
                        step_times,
                        direct=forcing.literal,
                        teacher=teacher,
                        students=forcing.students,
                        evaluation=name,
                    )
                )
        decided.append(claims.cost_claim(step_times, literal=forcing.literal))
        decided.append(claims.tuned_cost_claim(step_times, literal=forcing.literal))
    return decided


def provenance_of(ablation: Ablation, results: Sequence[dict]) -> dict:
    """Commits, commands, versions and machines of all cells, each once."""
    names = {"commits": "commit", "commands": "command", "versions": "versions", "machines": "machine"}
    found = {}
    for plural, name in names.items():
        values: list = []
        for result in results:
            if result[name] not in values:
                values.append(result[name])
        found[plural] = values
    return {**found, "seeds": list(ablation.seeds), "cells": len(results), "reference": ablation.reference}
