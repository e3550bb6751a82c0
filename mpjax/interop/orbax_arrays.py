"""Trees of `StoredArray` to and from Orbax checkpoints, a chunk at a time.

Orbax copies every host array of a tree before it writes the first byte, and reads whole arrays. The type handler below
writes and reads pieces instead; what lies on disk is what Orbax writes for host arrays, and Orbax reads it as such.
"""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from orbax.checkpoint import type_handlers as handlers

from mpjax.interop.stored_array import Index, StoredArray

CHUNK_BYTES = 64 * 2**20
ITEM = "ema"


def write_step(folder: Path, tree: dict[str, Any], written: Callable[[int], None] = lambda _: None) -> None:
    """Writes the item `ema` of a checkpoint step, complete with the file that marks it finished.

    Args:
        folder: of the step, `checkpoints/N`; must not exist.
        tree: nested dicts of `StoredArray`.
        written: told the bytes of each chunk.
    """
    pieces = _PiecewiseHandler(written)
    # Weights hardly compress; without it a conversion runs at the speed of the disk.
    item = ocp.PyTreeCheckpointHandler(type_handler_registry=_registry(pieces), use_compression=False)
    save_args = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), tree)
    args = ocp.args.Composite(**{ITEM: ocp.args.PyTreeSave(tree, save_args=save_args)})
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**{ITEM: item})) as checkpointer:
        try:
            checkpointer.save(folder.absolute(), args=args)
        except BaseException:  # Ctrl-C reaches this thread, but another one writes
            pieces.cancel()
            raise


def read_step(folder: Path) -> dict[str, Any]:
    """The item `ema` of a checkpoint step, `checkpoints/N`, as nested dicts of `StoredArray`; nothing is read yet."""
    path = (folder / ITEM).absolute()
    # Handlers themselves: a `Checkpointer` takes the folder for a step, and warns that it lacks the file of a step.
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        tree = handler.metadata(path).tree
    restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=StoredArray), tree)
    with contextlib.closing(
        ocp.PyTreeCheckpointHandler(type_handler_registry=_registry(_PiecewiseHandler()))
    ) as handler:
        return handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=restore_args))


def _registry(pieces: "_PiecewiseHandler") -> Any:
    """Orbax's registry with the handler below; it wants one of device arrays, too, of which there are none."""
    return handlers.create_type_handler_registry((StoredArray, pieces), (jax.Array, handlers.ArrayHandler()))


class _PiecewiseHandler(handlers.TypeHandler):
    """Orbax's handler of `StoredArray` leaves."""

    def __init__(self, written: Callable[[int], None] = lambda _: None):
        self._written = written
        self._cancelled, self._idle = threading.Event(), threading.Event()
        self._idle.set()

    def cancel(self) -> None:
        """Stops writing after the chunks that are underway."""
        self._cancelled.set()
        self._idle.wait(timeout=60)

    def typestr(self) -> str:
        """What the checkpoint says its leaves are."""
        return "np.ndarray"

    async def metadata(self, infos: Sequence[Any]) -> Sequence[Any]:
        """As for host arrays."""
        return await handlers.NumpyHandler().metadata(infos)

    async def serialize(self, values: Sequence[Any], infos: Sequence[Any], args: Any = None) -> Sequence[Any]:
        """Starts writing, once Orbax has made the folder."""

        async def work() -> None:
            try:
                await self._write(values, infos, args)
            finally:
                self._idle.set()

        self._idle.clear()
        return [ocp.future.CommitFutureAwaitingContractedSignals(work(), name="pieces")]

    async def _write(self, values: Sequence[Any], infos: Sequence[Any], args: Sequence[Any]) -> None:
        """Writes chunk after chunk; one is read while the last ones, of `CHUNK_BYTES` together, are being written."""
        underway: list[tuple[Any, int]] = []

        async def finish() -> None:
            for future, size in underway:
                await future
                self._written(size)
            underway.clear()

        for value, info, arg in zip(values, infos, args, strict=True):
            spec = handlers.get_json_tspec_write(
                info,
                use_ocdbt=info.is_ocdbt_checkpoint,
                global_shape=value.shape,
                local_shape=(value.block, *value.shape[1:]),  # chunks do not reach beyond
                dtype=value.dtype,
                process_index=jax.process_index(),
                arg=arg,
            )
            store = await ts.open(ts.Spec(spec), create=True, open=True, context=info.ts_context)
            for cell in _cells(store):
                if self._cancelled.is_set():
                    await finish()
                    raise asyncio.CancelledError  # which keeps Orbax from finishing the checkpoint
                piece = np.ascontiguousarray(value.read(cell))
                if sum(size for _, size in underway) + piece.nbytes > CHUNK_BYTES:
                    await finish()
                future = store[cell].write(piece, can_reference_source_data_indefinitely=True)
                underway.append((future, piece.nbytes))
        await finish()

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> Sequence[StoredArray]:
        """Opens the arrays."""
        del args
        opened = []
        for info in infos:
            spec = handlers.get_json_tspec_read(info, use_ocdbt=info.is_ocdbt_checkpoint)
            store = await ts.open(ts.Spec(spec), open=True, context=info.ts_context)
            opened.append(_stored(store))
        return opened


def _stored(store: ts.TensorStore) -> StoredArray:
    return StoredArray(
        shape=tuple(store.shape),
        dtype=store.dtype.numpy_dtype,
        read=lambda index: store[index].read().result(),
        block=_chunk(store)[0] if store.shape else 1,
    )


def _chunk(store: ts.TensorStore) -> tuple[int, ...]:
    """Shape of what the store keeps, reads and writes as one."""
    shape = store.chunk_layout.write_chunk.shape
    assert shape is not None  # zarr always has one
    return tuple(size or 1 for size in shape)


def _cells(store: ts.TensorStore) -> Iterator[Index]:
    """Covers an array with its chunks."""
    shape, chunk = store.shape, _chunk(store)
    for starts in itertools.product(*(range(0, size, step) for size, step in zip(shape, chunk, strict=True))):
        yield tuple(slice(a, min(a + step, size)) for a, step, size in zip(starts, chunk, shape, strict=True))
