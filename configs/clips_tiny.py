"""Real clips at 48×64, 12 fps, block-DCT latents: a complete run on a laptop, to see every step work.

    python -m mpjax encode --config=configs/clips_tiny.py --input=VIDEOS --output=runs/clips
    python -m mpjax train --config=configs/clips_tiny.py --run=runs/clips_model
    python -m mpjax generate --weights=runs/clips_model --prompt="a dog runs" --seconds=30 --out=dog.mp4

In ten minutes on two cores a network of 3.5 million parameters learns to hold a first frame for a second or two; what
follows dissolves. More clips, more updates and a wider network are what a real run adds.

Stage 1 trains everything under teacher forcing, stage 2 the output head under Direct Forcing, as the paper does.
Arguments: `full` (default) and `smoke` (a few updates, for tests).
"""

from ml_collections import ConfigDict

from mpjax.errors import InputError


def get_config(argument: str = "full") -> ConfigDict:
    if argument not in ("full", "smoke"):
        raise InputError(f"argument {argument!r} is unknown: use full or smoke")
    smoke = argument == "smoke"
    steps = 4 if smoke else 1500
    head_steps = 4 if smoke else 300
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        kind="clips",
        path="runs/clips",
        height=48,
        width=64,
        fps=12,
        time_factor=4,
        space_factor=4,
        channels=8,
        max_segments=4,
        validation_fraction=0.15,
    )
    config.model = dict(
        channels=8,
        heads=4,
        head_dim=32,
        dual_blocks=2,
        single_blocks=4,
        refiner_blocks=1,
        patch=2,
        rope_axes=(8, 12, 12),
        rope_theta=0.3,  # on a grid this small, base 256 hardly tells neighbours apart
        guidance_embeds=False,
        text_width=64,
        pooled_width=64,
        image_width=64,
        framepack=dict(segment_frames=3, history_frames=(1, 2, 8), rope_layout="framepack_f1"),
        memory=dict(patch=(1, 2, 2), depth=1, heads=4),
        encoders=dict(prompt_bytes=256, bytes_per_token=8, width=64, depth=1, heads=4, image_patch=4),
        dtype="float32",
        remat="none",
    )
    config.training = dict(
        stages=[
            dict(
                steps=steps,
                optimizer=dict(
                    learning_rate=1e-3, warmup_steps=max(steps // 20, 1), decay="cosine", final_fraction=0.05
                ),
                time=dict(name="logit_normal"),
                # From plain image-to-video to the whole clip.
                curriculum=[(0, 1), (steps // 4, 2), (steps // 2, 4)],
            ),
            dict(
                steps=head_steps,
                forcing=dict(kind="direct"),
                trainable="output_head",
                optimizer=dict(learning_rate=1e-4),
                time=dict(name="logit_normal"),
                curriculum=[(0, 4)],
            ),
        ],
        segments=4,
        batch_size=4,
        ema_decay=0.995,
        log_every=max(steps // 60, 1),
        validate_every=max(steps // 6, 2),
        sample_every=max(steps // 3, 2),
        samples=2,
        validation_batches=2,
        checkpoint_every=max(steps // 6, 2),
    )
    config.sampler = dict(steps=4 if smoke else 20)
    return config
