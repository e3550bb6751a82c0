"""An adapter of rank 32 beside FramePack-F1's 13 billion parameters, on clips at 480×832 and 30 fps.

    python -m mpjax convert --input=FRAMEPACK_F1 --vae=HUNYUAN_VIDEO/vae --output=runs/f1 --dtype=bfloat16
    python -m mpjax encode --config=configs/framepack_f1_lora.py --input=VIDEOS
    python -m mpjax train --config=configs/framepack_f1_lora.py --run=runs/style --init=runs/f1
    python -m mpjax generate --weights=runs/f1 --lora=runs/style --encoders=ENCODERS --image=a.png --out=a.mp4
    python -m mpjax convert --weights=runs/style --lora-format=musubi --output=style.safetensors

Paths are as in configs/framepack_f1_13b.py. The frozen weights are 26 GB of bfloat16; adapter, averages and optimizer
state are float32 and some 2.2 GB. Long-term memory, which F1 has not, is trained too by `trainable="lora_and_memory"`.
Arguments: `full` (default) and `smoke`, the same run with a transformer of a few thousand parameters.
"""

from ml_collections import ConfigDict

from configs import framepack_f1_13b


def get_config(argument: str = "full") -> ConfigDict:
    config = framepack_f1_13b.get_config(argument)
    smoke = argument == "smoke"
    steps = 2 if smoke else 4_000
    config.model.memory = None
    config.training.lora = dict(rank=2 if smoke else 32, alpha=2.0 if smoke else 32.0)
    config.training.base_dtype = "bfloat16"
    config.training.stages = [
        dict(
            steps=steps,
            forcing=dict(kind="direct"),
            trainable="lora",
            optimizer=dict(learning_rate=1e-4, warmup_steps=1 if smoke else 100),
            time=dict(name="logit_normal", shift=3.0),
            curriculum=[(0, 1), (1, 2)] if smoke else [(0, 1), (steps // 2, 3)],
        )
    ]
    config.training.update(segments=2 if smoke else 3, batch_size=1, micro_batches=1, ema_decay=0.99)
    config.mesh = dict(data=1, fsdp=1)
    return config
