"""What a compiled program moves, read from its optimised HLO: bytes of memory, and bytes between chips.

XLA's own cost analysis counts the body of a loop once. Here everything is weighed by how often it runs: a body as often
as its loop turns, each branch of a condition once. A loop is refused where neither XLA nor its condition says how often
it turns.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

_SIZES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "c64": 8, "c128": 16}
_ARRAY = re.compile(r"\b(pred|bf16|c64|c128|[suf]\d+)(?:e\w+)?\[([\d,]*)\](\{[^}]*\})?")
_NAMES = re.compile(r"%([\w.\-]+)")
_CALLS = re.compile(
    r"\b(?:calls|to_apply|body|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%[\w.\-]+)"
)
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_INDEX = re.compile(r"\bindex=(\d+)")
_KERNEL = re.compile(r"splash_m[hq]a_[a-z]+")
_TARGET = re.compile(r'custom_call_target="([^"]+)"')
_IOTA_GROUPS = re.compile(r"replica_groups=\[\d+,(\d+)\]<=")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]+)\}")

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# They make no traffic of their own: names for parts of other arrays, or control.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "partition-id", "replica-id", "iota", "opt-barrier", "domain",
}  # fmt: skip
_SLICES = {"dynamic-slice", "slice", "gather"}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of HLO: its name, what it makes, its operation, its operands (or number, or value), and the rest."""

    name: str
    result: str
    operation: str
    operands: tuple[str, ...]
    attributes: str


@dataclasses.dataclass
class Traffic:
    """What one run of a program moves on each chip.

    Attributes:
        memory: bytes read and written in HBM.
        moved: bytes that a chip sends, by kind of collective.
        count: collectives, by kind.
        kernels: names of custom kernels, and how often they run.
    """

    memory: float = 0.0
    moved: dict[str, float] = dataclasses.field(default_factory=dict)
    count: dict[str, int] = dataclasses.field(default_factory=dict)
    kernels: dict[str, int] = dataclasses.field(default_factory=dict)


def traffic(text: str) -> Traffic:
    """Reads the text of an optimised HLO module.

    Raises:
        ValueError: it has no entry computation, or a loop whose number of turns XLA does not know.
    """
    computations, entry = _parse(text)
    found = Traffic()
    _walk(computations, entry, 1, found, inside_fusion=False)
    return found


def array_bytes(shape: str) -> float:
    """Bytes in HBM of an HLO type, `bf16[8,128]{1,0}` or a tuple, without what lies in memory on the chip."""
    return sum(_bytes(kind, dimensions) for kind, dimensions, layout in _ARRAY.findall(shape) if "S(" not in layout)


def _bytes(kind: str, dimensions: str) -> float:
    elements = math.prod(int(d) for d in dimensions.split(",") if d)
    return elements * (_SIZES[kind] if kind in _SIZES else int(kind[1:]) / 8)


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in _whole_lines(text):
        if line.endswith("{") and ("->" in line) and " = " not in line.split("->")[0]:
            words = line.split()
            name = words[1] if words[0] == "ENTRY" else words[0]
            name = name.lstrip("%").split("(")[0]
            entry = name if words[0] == "ENTRY" else entry
            current = computations.setdefault(name, [])
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            current.append(_instruction(line))
    if not entry:
        raise ValueError("this is no HLO module: it has no ENTRY computation")
    return computations, entry


def _whole_lines(text: str) -> Iterator[str]:
    """The lines of a module, each instruction on one: what Pallas says of a kernel, in braces, has line breaks."""
    begun, depth = "", 0
    for line in text.splitlines():
        if not begun and not line.startswith(" "):
            yield line
            continue
        begun += line
        bare = _QUOTED.sub("", line)
        depth += bare.count("{") - bare.count("}")
        if depth <= 0:
            yield begun
            begun, depth = "", 0


def _instruction(line: str) -> Instruction:
    left, right = line.strip().removeprefix("ROOT ").split(" = ", 1)
    end = _closing(right, 0) + 1 if right.startswith("(") else right.index(" ")
    result, rest = right[:end], right[end:].lstrip()
    start = rest.index("(")
    stop = _closing(rest, start)
    operation = rest[:start].strip()
    inside = rest[start + 1 : stop]
    operands = (inside,) if operation in ("parameter", "constant") else tuple(_NAMES.findall(inside))
    return Instruction(left.lstrip("%"), result, operation, operands, rest[stop + 1 :])


def _closing(text: str, start: int) -> int:
    """The place of the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


def _called(instruction: Instruction) -> Iterator[str]:
    for names in _CALLS.findall(instruction.attributes):
        yield from _NAMES.findall(names)


def _walk(
    computations: Mapping[str, list[Instruction]], name: str, times: int, found: Traffic, *, inside_fusion: bool
) -> None:
    """Adds what a computation moves, run so many times."""
    shapes = {i.name: i.result for i in computations[name]}
    started = {o for i in computations[name] if "AsyncCollectiveStart" in i.attributes for o in i.operands}
    for i in computations[name]:
        kind = i.operation.removesuffix("-start")
        # A collective that runs beside other work stands in every fusion it runs beside; it counts where it starts.
        if kind in COLLECTIVES and ("chain_id=" not in i.attributes or i.name in started):
            kind = "reduce-scatter" if name.startswith("all-reduce-scatter") else kind
            found.moved[kind] = found.moved.get(kind, 0) + times * _moved(kind, i, fused=kind != i.operation)
            found.count[kind] = found.count.get(kind, 0) + times
        if i.operation == "custom-call":
            label = _KERNEL.findall(i.name + i.attributes) or _TARGET.findall(i.attributes) or [i.name]
            found.kernels[label[0]] = found.kernels.get(label[0], 0) + times
        if not (inside_fusion or i.operation in _FREE or i.operation.endswith("-done")):
            found.memory += times * _accessed(computations, i, shapes)
        if i.operation in ("while", "conditional", "call", "fusion", "async-start"):
            turns = 1
            if i.operation == "while":
                turns = _turns(computations, i)
            inner = inside_fusion or i.operation in ("fusion", "async-start")
            for called in _called(i):
                _walk(computations, called, times * turns, found, inside_fusion=inner)


def _turns(computations: Mapping[str, list[Instruction]], loop: Instruction) -> int:
    """How often a loop turns, which XLA says, or else the bound of its counter, from 0, and the step of it."""
    if known := _TURNS.search(loop.attributes):
        return int(known[1])
    condition, body = (re.search(rf"{name}=%([\w.\-]+)", loop.attributes) for name in ("condition", "body"))
    bounds = computations[condition[1]] if condition else []
    whole = [
        int(i.operands[0]) for i in bounds if i.operation == "constant" and i.result.startswith(("s32[]", "u32[]"))
    ]
    places = [_INDEX.search(i.attributes) for i in bounds if i.operation == "get-tuple-element"]
    if len(whole) != 1 or len(places) != 1 or not (place := places[0]) or not body:
        raise ValueError(f"XLA does not say how often the loop {loop.name} turns")
    return -(-whole[0] // _step(computations[body[1]], int(place[1])))


def _step(body: list[Instruction], place: int) -> int:
    """What a turn adds to the counter at this place of the state: one in `lax.scan`, two where XLA unrolled a loop."""
    values = {i.name: i for i in body}
    ends = [i for i in body if i.operation == "tuple"]
    counted = values.get(ends[-1].operands[place]) if ends else None
    added = [values[name] for name in counted.operands if name in values] if counted else []
    steps = [int(i.operands[0]) for i in added if i.operation == "constant"]
    return steps[0] if counted and counted.operation == "add" and len(steps) == 1 else 1


def _moved(kind: str, i: Instruction, *, fused: bool) -> float:
    """Bytes a chip sends in the usual algorithm on a ring of g chips, of an array of R bytes behind the operation."""
    if iota := _IOTA_GROUPS.search(i.attributes):
        g = int(iota[1])
    elif listed := _LISTED_GROUPS.search(i.attributes):
        g = len(listed[1].split(","))
    else:
        g = 0  # all chips, or a permutation
    share = (g - 1) / g if g else 1.0
    arrays = [_bytes(dtype, dimensions) for dtype, dimensions, _ in _ARRAY.findall(i.result)]
    if i.operation == "all-gather-start":
        arrays = arrays[len(arrays) // 2 :]  # (what goes in, what comes out)
    if i.operation == "collective-permute-start":
        return arrays[0]
    size = sum(arrays)
    if kind == "collective-permute":
        return size
    if kind == "all-reduce":
        return 2 * share * size
    if kind == "reduce-scatter" and not fused:
        return share * size * max(g, 1)  # what comes out is 1 / g
    return share * size


def _accessed(computations: Mapping[str, list[Instruction]], i: Instruction, shapes: Mapping[str, str]) -> float:
    """Bytes that an instruction reads and writes; of an array that it only cuts a piece from, the piece."""
    written = array_bytes(i.result)
    if i.operation in _SLICES:
        return 2 * written
    if i.operation == "dynamic-update-slice":
        return 2 * array_bytes(shapes.get(i.operands[1], ""))
    if i.operation != "fusion":
        return written + sum(array_bytes(shapes.get(name, "")) for name in i.operands)
    (body,) = _called(i)
    inner = computations[body]
    made = {j.name: j for j in inner}
    users: dict[str, list[Instruction]] = {}
    for j in inner:
        for name in j.operands:
            users.setdefault(name, []).append(j)
    read = 0.0
    for j in inner:
        # In on-chip memory it is only outside that the type says so.
        if j.operation == "parameter" and array_bytes(shapes.get(i.operands[int(j.operands[0])], j.result)):
            read += _read(j, users)
    updates = [j for j in inner if j.operation == "dynamic-update-slice"]
    if updates and math.isclose(sum(array_bytes(j.result) for j in updates), written):
        # In place: only the pieces are written.
        written = sum(array_bytes(made[j.operands[1]].result) for j in updates)
    return written + read


def _read(i: Instruction, users: Mapping[str, list[Instruction]]) -> float:
    """Bytes that a fusion reads of one of its arrays, or of the same one under another name."""
    total, whole = 0.0, array_bytes(i.result)
    for user in users.get(i.name, []):
        if user.operation in _SLICES:
            total += array_bytes(user.result)
        elif user.operation == "dynamic-update-slice" and user.operands[0] == i.name:
            continue  # overwritten in place
        elif user.operation == "bitcast":
            total += _read(user, users)
        else:
            return whole
    return min(total, whole)
