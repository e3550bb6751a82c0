"""RecallWorld R1 at tier T0: does memory bring back a toy that left the picture?

    python -m mpjax train --config=configs/recall_tiny.py --run=runs/recall
    python -m mpjax train --config=configs/recall_tiny.py:framepack --run=runs/recall_framepack

Arguments: `memorypack` (default), `framepack` (no long-term memory), `smoke` (a few updates, for tests).
"""

from ml_collections import ConfigDict

from mpjax.errors import InputError


def get_config(argument: str = "memorypack") -> ConfigDict:
    if argument not in ("memorypack", "framepack", "smoke"):
        raise InputError(f"argument {argument!r} is unknown: use memorypack, framepack or smoke")
    steps = 20 if argument == "smoke" else 2800
    config = ConfigDict()
    config.seed = 0
    config.data = dict(kind="recallworld", world=dict(scene="R1", path="fixed"))
    config.model = dict(
        channels=3,
        heads=2,
        head_dim=32,
        dual_blocks=1,
        single_blocks=2,
        refiner_blocks=1,
        patch=4,
        rope_axes=(8, 12, 12),
        # A picture is 2×2 patches: a base below 1 gives every pair of channels a frequency that tells neighbours apart.
        rope_theta=0.3,
        guidance_embeds=False,
        text_width=32,
        pooled_width=32,
        image_width=32,
        framepack=dict(segment_frames=4, history_frames=(1, 2, 4), rope_layout="framepack_f1"),
        memory=None if argument == "framepack" else dict(patch=(2, 4, 4), depth=1, heads=2),
        encoders=dict(prompt_bytes=16, width=32, depth=1, heads=2, image_patch=8),
        dtype="float32",
        remat="none",
    )
    config.training = dict(
        stages=[
            dict(
                steps=steps,
                optimizer=dict(learning_rate=2e-3, warmup_steps=steps // 20, decay="cosine", final_fraction=0.02),
                # The toy returns at once, then after up to 4 hidden segments: one more every sixteenth of the run.
                curriculum=[(steps * n // 16, 2 + n) for n in range(5)],
            )
        ],
        segments=6,
        batch_size=32,
        ema_decay=0.995,
        log_every=max(steps // 40, 1),
        validate_every=steps // 4,
        sample_every=steps // 2,
        checkpoint_every=steps // 4,
    )
    config.sampler = dict(steps=10)
    return config
