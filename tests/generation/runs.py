"""Run folders made without training: real files around random weights, so that every part of the network speaks."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mpjax import config
from mpjax.data.batch import Batch
from mpjax.datasets import open_datasets
from mpjax.experiment import Experiment
from mpjax.interop.transformer_names import parameter_shapes
from mpjax.models.lora import Lora, init_adapter
from mpjax.models.memorypack import Denoiser
from mpjax.training.checkpoints import Checkpoints
from mpjax.training.retention import Retention
from mpjax.training.run_folder import claim
from mpjax.training.state import TrainState
from tests.tiny import perturbed_params

SMALL = {
    "head_dim": 8,
    "single_blocks": 1,
    "rope_axes": (4, 2, 2),
    "text_width": 8,
    "pooled_width": 8,
    "image_width": 8,
}


def recallworld_experiment() -> Experiment:
    """`configs/recall_tiny.py:smoke` with a smaller network: 8 × 8 frames, 4 a second, 4 a segment."""
    values = config.load(f"{config.find('recall_tiny.py')}:smoke")
    return _small(values, segments=5)


def clips_experiment(path: Path) -> Experiment:
    """A run on 16 × 16 clips at 8 frames/s through the block-DCT codec: a segment is 2 latent, 8 pixel frames."""
    values = config.load(f"{config.find('recall_tiny.py')}:smoke")
    size = {"height": 16, "width": 16, "fps": 8, "time_factor": 4, "space_factor": 2, "channels": 6}
    values.data = {"kind": "clips", "path": str(path), "max_segments": 2, "validation_fraction": 0.5, **size}
    values.model.channels = 6
    values.model.framepack.segment_frames = 2
    values.training.batch_size = 1
    return _small(values, segments=2)


def _small(values, segments: int) -> Experiment:
    values.training.stages[0].update(curriculum=[(0, segments)])
    values.training.segments = segments
    values.sampler.steps = 2
    values.model.update(SMALL)
    values.model.encoders.width = 8
    return config.build(Experiment, values)


def write_run(folder: Path, run: Experiment, *, step: int = 2) -> Path:
    """A run folder with one checkpoint; a dataset of clips must be there."""
    claim(folder, run, open_datasets(run), None)
    add_checkpoint(folder, run, step)
    return folder


def add_checkpoint(folder: Path, run: Experiment, step: int) -> dict:
    """Another checkpoint, with weights of its own; returns them."""
    model = run.model
    latents = np.zeros((1, model.framepack.segment_frames, 8, 8, model.channels), np.float32)
    prompts = np.zeros((1, 1, model.encoders.prompt_bytes), np.int32)
    batch = Batch(
        reference=latents[:, :1], segments=latents[:, None], prompts=prompts, weight=np.ones((1, 1), np.float32)
    )
    ema = perturbed_params(Denoiser(model), batch, seed=step)
    _save(folder, ema, step)
    return ema


def write_lora_run(folder: Path, run: Experiment, base: Path, *, step: int = 3) -> Path:
    """A run folder of an adapter of rank 2 and alpha 3 beside the weights of a run of the same network."""
    stage = dataclasses.replace(run.training.stages[0], trainable="lora")
    training = dataclasses.replace(run.training, stages=(stage,), lora=Lora(rank=2, alpha=3.0))
    run = dataclasses.replace(run, training=training)
    claim(folder, run, open_datasets(run), base)
    adapter = jax.eval_shape(lambda: init_adapter(training.lora, jax.random.key(0), parameter_shapes(run.model)))
    rng = np.random.default_rng(step)
    ema = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), adapter)
    _save(folder, ema, step)
    return folder


def _save(folder: Path, ema: dict, step: int) -> None:
    state = TrainState(
        step=jnp.asarray(step),
        params={"other": jnp.zeros(1)},
        ema=ema,
        opt_state={"other": jnp.zeros(1)},
        carry={"other": jnp.zeros(1)},
        key=jax.random.key(0),
    )
    with Checkpoints(folder / "checkpoints", Retention()) as checkpoints:
        checkpoints.save(state)
        checkpoints.wait()
