"""The pickles of PyTorch's files, read without `pickle`: a machine that builds dicts and tensors and calls nothing.

A pickle is a program. This machine knows the instructions that build containers, numbers and strings. A global is only
its name, and what a pickle would call becomes an `Inert` record of name, arguments and state: nothing is imported and
nothing is called, whatever the file says. A few names of PyTorch's own have a meaning here, written out in `_MEANING`.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

LONGEST = 64 * 1024 * 1024  # bytes of one pickle; those of the largest networks take a few hundred kB

STORAGES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "DoubleStorage": np.dtype(np.float64),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class Refused(ValueError):
    """Not a pickle that this machine runs; the message completes "it …"."""


@dataclasses.dataclass(frozen=True)
class Name:
    """A global, which is not looked up."""

    module: str
    name: str


@dataclasses.dataclass(eq=False)
class Inert:
    """What a pickle would have made by calling `made_by`: the record of it."""

    made_by: Any
    arguments: Any
    state: Any = None


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers elsewhere in the file, by their key."""

    key: str
    dtype: np.dtype
    length: int


@dataclasses.dataclass(frozen=True)
class StridedTensor:
    """A tensor: where in its storage which number is; all counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def run(file: BinaryIO, storages: dict[str, Storage] | None = None) -> Any:
    """Runs one pickle and leaves the file behind it.

    Args:
        file: open at the beginning of a pickle.
        storages: receives every storage that the pickle names, by key.

    Returns:
        dicts, lists, tuples, strings, bytes, numbers, `StridedTensor`, `Name` and `Inert`.

    Raises:
        Refused: an instruction that is not known here, or a damaged pickle.
    """
    machine = _Machine({} if storages is None else storages)
    start = file.tell()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if file.tell() - start > LONGEST:
                raise Refused(f"holds a pickle of more than {LONGEST} bytes")
            if opcode.name == "STOP":
                return machine.stack.pop()
            step = _STEPS.get(opcode.name)
            if step is None:
                raise Refused(f"holds the pickle instruction {opcode.name}, which no checkpoint needs")
            step(machine, argument)
    except Refused:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        raise Refused("holds a damaged pickle") from error
    raise Refused("holds a pickle without an end")


class _Mark:
    pass


class _Machine:
    def __init__(self, storages: dict[str, Storage]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[place], _Mark):
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise Refused("holds a damaged pickle")

    def take(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise Refused("holds a damaged pickle")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items


def _push(machine: _Machine, value: Any) -> None:
    machine.stack.append(value)


def _pop(machine: _Machine, _: Any) -> None:
    machine.take(1)


def _pop_mark(machine: _Machine, _: Any) -> None:
    machine.since_mark()


def _set_items(machine: _Machine, items: list[Any]) -> None:
    if type(machine.stack[-1]) is not dict or len(items) % 2:
        raise Refused("holds a damaged pickle")
    _fill(machine.stack[-1], items)


def _fill(target: dict, items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        # The hash of a tuple visits all that it holds, again and again: such a key could take for ever.
        if not isinstance(key, str | bytes | int | float | None):
            raise Refused(f"holds a dict with a {type(key).__name__} as a key")
        target[key] = value


def _dict(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    made: dict[Any, Any] = {}
    if len(items) % 2:
        raise Refused("holds a damaged pickle")
    _fill(made, items)
    machine.stack.append(made)


def _append_items(machine: _Machine, items: list[Any]) -> None:
    if type(machine.stack[-1]) is not list:
        raise Refused("holds a damaged pickle")
    machine.stack[-1].extend(items)


def _put(machine: _Machine, place: int | None) -> None:
    machine.memo[len(machine.memo) if place is None else int(place)] = machine.stack[-1]


def _stack_global(machine: _Machine, _: Any) -> None:
    module, name = machine.take(2)
    if not (isinstance(module, str) and isinstance(name, str)):
        raise Refused("holds a damaged pickle")
    machine.stack.append(Name(module, name))


def _reduce(machine: _Machine, _: Any) -> None:
    called, arguments = machine.take(2)
    if not isinstance(arguments, tuple):
        raise Refused("holds a damaged pickle")
    meaning = _MEANING.get(called) if isinstance(called, Name) else None
    machine.stack.append(Inert(called, arguments) if meaning is None else meaning(*arguments))


def _new(machine: _Machine, _: Any) -> None:
    machine.stack.append(Inert(*machine.take(2)))


def _build(machine: _Machine, _: Any) -> None:
    (state,) = machine.take(1)
    target = machine.stack[-1]
    if isinstance(target, Inert):
        target.state = state
    elif type(target) is not dict:  # of an ordered dict it is `_metadata`, which says nothing of tensors
        raise Refused("holds a damaged pickle")


def _persistent(machine: _Machine, _: Any) -> None:
    (identity,) = machine.take(1)
    kind, storage, key, _, length = identity[:5]
    if kind != "storage" or not isinstance(storage, Name) or storage.name not in STORAGES:
        raise Refused("holds numbers of a kind that is not known")
    if not isinstance(key, str | int) or type(length) is not int or length < 0 or (identity[5:] not in ((), (None,))):
        raise Refused("holds a damaged pickle")
    made = Storage(str(key), STORAGES[storage.name], length)
    if machine.storages.setdefault(made.key, made) != made:
        raise Refused("names one storage in two ways")
    machine.stack.append(made)


def _ordered_dict(items: Any = ()) -> dict:
    made: dict = {}
    for key, value in items:
        _fill(made, [key, value])
    return made


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StridedTensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or any(type(each) is not int or not 0 <= each < 2**62 for each in numbers):
        raise Refused("holds a damaged tensor")
    if len(shape) != len(strides) or len(shape) > 8:
        raise Refused("holds a damaged tensor")
    count = 1
    for size in shape:
        count *= size
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if count else 0
    # A stride of 0 would make a huge tensor of few numbers.
    if count > storage.length or (count and last >= storage.length):
        raise Refused("holds a tensor that is larger than its numbers")
    return StridedTensor(storage, offset, tuple(shape), tuple(strides))


def _first(value: Any, *_: Any) -> Any:
    return value


_MEANING: dict[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): _ordered_dict,
    Name("torch._utils", "_rebuild_tensor"): _tensor,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _first,
    Name("torch.jit._pickle", "restore_type_tag"): _first,
}

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: _push(machine, _Mark()),
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "NONE": lambda machine, _: _push(machine, None),
    "NEWTRUE": lambda machine, _: _push(machine, True),
    "NEWFALSE": lambda machine, _: _push(machine, False),
    **dict.fromkeys(
        ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        _push,
    ),
    **dict.fromkeys(
        ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        _push,
    ),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _push),
    "EMPTY_DICT": lambda machine, _: _push(machine, {}),
    "EMPTY_LIST": lambda machine, _: _push(machine, []),
    "EMPTY_TUPLE": lambda machine, _: _push(machine, ()),
    "DICT": _dict,
    "LIST": lambda machine, _: _push(machine, machine.since_mark()),
    "TUPLE": lambda machine, _: _push(machine, tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: _push(machine, tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: _push(machine, tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: _push(machine, tuple(machine.take(3))),
    "APPEND": lambda machine, _: _append_items(machine, machine.take(1)),
    "APPENDS": lambda machine, _: _append_items(machine, machine.since_mark()),
    "SETITEM": lambda machine, _: _set_items(machine, machine.take(2)),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, place: _push(machine, machine.memo[int(place)])),
    "GLOBAL": lambda machine, both: _push(machine, Name(*both.split(" ", 1))),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _new,
    "BUILD": _build,
    "BINPERSID": _persistent,
}
