"""Ablations, run with `python -m mpjax ablate`."""

from ml_collections import ConfigDict


def shrink(base: ConfigDict) -> None:
    """Turns a T0 experiment into the smallest that has every part, with four updates: for tests."""
    base.model.update(head_dim=8, single_blocks=1, rope_axes=(4, 2, 2), text_width=8, pooled_width=8, image_width=8)
    base.model.encoders.width = 8
    for stage in base.training.stages:
        stage.update(steps=4, curriculum=[(0, stage["curriculum"][-1][1])])
        stage["optimizer"].update(warmup_steps=0)
    base.training.update(batch_size=2, log_every=2, checkpoint_every=2, validate_every=4, validation_batches=1)
    base.sampler = dict(steps=2)
