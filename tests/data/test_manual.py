"""The tables of docs/data.md say what the code does."""

import ast
import dataclasses
import re
from pathlib import Path

from mpjax.data.raw.filters import Filters
from mpjax.data.raw.layouts import LAYOUTS
from mpjax.data.records import EMBEDDINGS, features

TEXT = (Path(__file__).parent.parent.parent / "docs" / "data.md").read_text()


def rows(head):
    """The cells of a table, by the beginning of its head."""
    table = re.split(r"\n\n", TEXT.partition(f"\n| {head} |")[2])[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def test_thresholds():
    found = {row[0].strip("`"): ast.literal_eval(row[1].strip("`")) for row in rows("field of `data.filters`")}
    assert found == dataclasses.asdict(Filters())


def test_fields_of_a_record():
    found = {name for row in rows("field") for name in re.findall(r"`(\w+)`", row[0])}
    assert found == set(features(4, dict.fromkeys(EMBEDDINGS, 8)))


def test_columns_of_layouts():
    found = [(row[0], set(re.findall(r"`(\w+)`", row[1]))) for row in rows("layout")]
    wanted = [(layout.kind, set(layout.columns)) for layout in LAYOUTS if layout.kind != "plain"]
    assert sorted(found[1:]) == sorted(wanted) and found[0] == ("plain", {"path", "file"})
