"""FramePack-F1's 13 billion parameters, with SemanticPack, on clips at 480×832 and 30 fps.

    python -m mpjax convert --input=FRAMEPACK_F1 --vae=HUNYUAN_VIDEO/vae --output=runs/f1
    python -m mpjax encode --config=configs/framepack_f1_13b.py --input=VIDEOS
    python -m mpjax train --config=configs/framepack_f1_13b.py --run=runs/f1_memory --init=runs/f1
    python -m mpjax generate --weights=runs/f1_memory --encoders=ENCODERS --image=a.png --prompt="a dog" --out=a.mp4

`HUNYUAN_VIDEO/vae` and `ENCODERS` are paths on your disk: set `data.vae` and `data.encoders` below, or by flags.
Stage 1 trains everything under teacher forcing, stage 2 the output head under Direct Forcing. Parameters, averages and
optimizer state are float32: some 210 GB, which `mesh.fsdp` spreads over the devices of one slice.
Arguments: `full` (default) and `smoke`, the same run with a transformer of a few thousand parameters.
"""

from ml_collections import ConfigDict

from mpjax.errors import InputError


def get_config(argument: str = "full") -> ConfigDict:
    if argument not in ("full", "smoke"):
        raise InputError(f"argument {argument!r} is unknown: use full or smoke")
    smoke = argument == "smoke"
    steps, head_steps = (2, 2) if smoke else (20_000, 2_000)
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        kind="clips",
        path="runs/f1_clips",
        height=32 if smoke else 480,
        width=48 if smoke else 832,
        fps=30,
        vae="weights/hunyuan_video/vae",
        encoders="weights/encoders",
        max_segments=2 if smoke else 20,
        validation_fraction=0.02,
    )
    # The defaults of `Architecture` are FramePack-F1's.
    config.model = dict(encoders=None)
    if smoke:
        config.model.update(
            heads=2,
            head_dim=16,
            dual_blocks=1,
            single_blocks=1,
            refiner_blocks=1,
            rope_axes=(4, 6, 6),
            text_width=24,
            pooled_width=20,
            image_width=28,
            memory=dict(heads=2, depth=1),
            dtype="float32",
            remat="none",
        )
    config.guidance = 1.0  # what F1 was distilled to do at 10 is sampled with `generate --distilled-guidance=10`
    config.training = dict(
        stages=[
            dict(
                steps=steps,
                optimizer=dict(learning_rate=1e-5, warmup_steps=1 if smoke else 500),
                time=dict(name="logit_normal", shift=3.0),
                curriculum=[(0, 1), (1, 2)] if smoke else [(0, 2), (steps // 4, 5), (steps // 2, 20)],
            ),
            dict(
                steps=head_steps,
                forcing=dict(kind="direct"),
                trainable="output_head",
                optimizer=dict(learning_rate=1e-5),
                time=dict(name="logit_normal", shift=3.0),
                curriculum=[(0, 2 if smoke else 20)],
            ),
        ],
        segments=2 if smoke else 20,
        batch_size=1 if smoke else 64,
        ema_decay=0.9999,
        log_every=1 if smoke else 10,
        checkpoint_every=2 if smoke else 500,
    )
    config.sampler = dict(kind="unipc", steps=2 if smoke else 25, shift=None)
    config.mesh = dict(data=1, fsdp=1) if smoke else dict(data=1, fsdp=64)
    return config
