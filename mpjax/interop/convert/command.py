"""The verb `convert`: from flags to a converted folder, in either direction."""

import argparse
from collections.abc import Callable

import ml_dtypes
import numpy as np

from mpjax.errors import InputError
from mpjax.interop.convert.exporting import export_run
from mpjax.interop.convert.importing import import_checkpoint

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def convert(args: argparse.Namespace, say: Callable[[str], None] = print) -> None:
    """Runs the verb; `args` are those of `__main__.parser`.

    Raises:
        InputError: before anything is written.
    """
    source = args.input or args.weights
    if args.output.resolve() == source.resolve():
        raise InputError(f"--output is {args.output}, the folder that is converted: give another one")
    dtype = None if args.dtype is None else DTYPES[args.dtype]
    options = {name: getattr(args, name) for name in ("vae", "from_t2v", "layout", "fps", "height", "width")}
    if args.weights is None:
        import_checkpoint(args.input, args.output, dtype=dtype, say=say, **options)
        return
    for name, value in options.items():
        if value:
            raise InputError(f"--{name.replace('_', '-')} belongs to --input, but --weights is given: leave it out")
    export_run(args.weights, args.output, dtype=dtype, say=say)
