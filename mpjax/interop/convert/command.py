"""The verb `convert`: from flags to a converted folder, in either direction."""

import argparse
from collections.abc import Callable

import ml_dtypes
import numpy as np

from mpjax.errors import InputError
from mpjax.interop.convert.exporting import export_run
from mpjax.interop.convert.importing import import_checkpoint
from mpjax.interop.convert.loras import export_lora

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
    if args.weights is None and (args.lora or args.lora_format):
        raise InputError("--lora and --lora-format belong to --weights: give the run folder of the network")
    if args.weights is None:
        import_checkpoint(args.input, args.output, dtype=dtype, say=say, **options)
        return
    for name, value in options.items():
        if value:
            raise InputError(f"--{name.replace('_', '-')} belongs to --input, but --weights is given: leave it out")
    if args.lora_format is not None:
        if dtype is not None:
            raise InputError("--dtype is of whole weights, but --lora-format is given: leave one of them out")
        export_lora(args.weights, args.output, args.lora_format, file=args.lora, say=say)
        return
    if args.lora is not None:
        raise InputError("--lora is a file to write anew: add --lora-format")
    export_run(args.weights, args.output, dtype=dtype, say=say)
