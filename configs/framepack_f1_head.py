"""The Direct Forcing stage of FramePack-F1's 13 billion parameters on one card: the output head alone, at 480×832.

    python -m mpjax encode --config=configs/framepack_f1_head.py --input=VIDEOS
    python -m mpjax train --config=configs/framepack_f1_head.py --run=runs/f1_head --init=runs/f1_memory
    python -m mpjax generate --weights=runs/f1_head --encoders=ENCODERS --image=a.png --prompt="a dog" --out=a.mp4

It is stage 2 of configs/framepack_f1_13b.py, where paths are explained, and begins with what stage 1 left; weights
without long-term memory, such as FramePack-F1's own, need `--config.model.memory=None`. What is not trained stays in
the weights of `--init` and is held in bfloat16, 27 GB; averages and checkpoints hold the head alone.
Arguments: `full` (default) and `smoke`, the same run with a transformer of a few thousand parameters.
"""

from ml_collections import ConfigDict

from configs import framepack_f1_13b


def get_config(argument: str = "full") -> ConfigDict:
    config = framepack_f1_13b.get_config(argument)
    config.training.stages = config.training.stages[1:]
    config.training.base_dtype = "bfloat16"
    config.training.update(batch_size=1)
    config.mesh = dict(data=1, fsdp=1)
    return config
