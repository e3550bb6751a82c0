"""The steps that `train` and `generate` run, lowered for devices that are not here. Nothing is allocated."""

import dataclasses
import functools
import importlib.util
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mpjax.codecs.hunyuan_vae import HunyuanVaeCodec, compiled_network
from mpjax.conditioning.pretrained import IMAGE_TOKENS, TEXT_TOKENS
from mpjax.data.batch import Batch
from mpjax.errors import InputError
from mpjax.experiment import ClipsData, Experiment, RecallWorldData
from mpjax.generation.rollout import segment_sampler
from mpjax.interop.vae_names import vae_shapes
from mpjax.models.autoregressive import start_video
from mpjax.models.encoders import Condition
from mpjax.models.flops import Tokens, token_counts
from mpjax.models.memorypack import Denoiser
from mpjax.models.vae import VaeArchitecture
from mpjax.models.vae_tiling import Tiling, largest_latent_tile
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.rules import batch_sharding
from mpjax.plan.chips import parse_slice
from mpjax.training.compiled_step import stage_step, state_factory
from mpjax.training.curriculum import total_steps


def topology_devices(name: str) -> list:
    """The devices of a TPU slice, which need not exist.

    Raises:
        InputError: the TPU compiler is not installed, or does not know this slice, or it is none.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("the TPU compiler is missing: pip install -r requirements-plan.txt")
    # The compiler takes hosts to have several chips, unless it is told.
    one = parse_slice(name).size == 1
    options = {"chips_per_host_bounds": (1, 1, 1)} if one else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except Exception as error:  # the compiler raises JaxRuntimeError, ValueError or RuntimeError, by the mistake
        raise InputError(
            f"topology {name}: the TPU compiler refuses it ({' '.join(str(error).split())[:200]})"
        ) from error


def example_batch(experiment: Experiment, videos: int, segments: int) -> Batch:
    """Shapes and dtypes of a batch, as the data source of the experiment would give it."""
    arch, spec = experiment.model, jax.ShapeDtypeStruct
    frame = (*experiment.latent_size, arch.channels)
    prompts = segments if isinstance(experiment.data, RecallWorldData) else 1
    return Batch(
        reference=spec((videos, 1, *frame), jnp.float32),
        segments=spec((videos, segments, arch.framepack.segment_frames, *frame), jnp.float32),
        prompts=_prompts(experiment, (videos, prompts)),
        weight=spec((videos, segments), jnp.float32),
    )


def _prompts(experiment: Experiment, batch: tuple[int, ...]) -> Any:
    """Bytes for the built-in encoders, else embeddings of the pretrained ones; `batch` are the leading axes."""
    arch = experiment.model
    spec: Any = jax.ShapeDtypeStruct
    if arch.encoders:
        return spec((*batch, arch.encoders.prompt_bytes), jnp.int32)
    return Condition(
        text=spec((*batch, TEXT_TOKENS, arch.text_width), jnp.float32),
        text_mask=spec((*batch, TEXT_TOKENS), bool),
        pooled=spec((*batch, arch.pooled_width), jnp.float32),
        image=spec((*batch, IMAGE_TOKENS, arch.image_width), jnp.float32),
    )


def network_inputs(experiment: Experiment) -> tuple[Any, tuple]:
    """Shapes of the parameters, and of what `Denoiser.velocity` reads besides them, for one video."""
    batch, denoiser = example_batch(experiment, 1, 1), Denoiser(experiment.model, experiment.guidance)
    shape = lambda x: jax.ShapeDtypeStruct((1, *x.shape[2:]), x.dtype)  # noqa: E731
    prompts, segment = jax.tree.map(shape, batch.prompts), shape(batch.segments)
    params = nn.unbox(jax.eval_shape(denoiser.init, jax.random.key(0), prompts, batch.reference, segment))
    history, memory = jax.eval_shape(denoiser.start, params, prompts, batch.reference)
    condition = jax.eval_shape(denoiser.condition, params, prompts, batch.reference)
    time = jax.ShapeDtypeStruct((1,), jnp.float32)
    return params, (segment, time, history, condition, memory)


def tokens_of(experiment: Experiment) -> Tokens:
    """The tokens that the network reads, from a trace of it."""
    params, arguments = network_inputs(experiment)
    inputs = jax.eval_shape(Denoiser(experiment.model, experiment.guidance).embed, params, *arguments)
    condition = arguments[3]
    text, image = condition.text.shape[1], condition.image.shape[1]
    read = inputs.context.shape[1] - text - image
    return token_counts(experiment.model, experiment.latent_size, text=text, image=image, memory=read)


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def global_batch(experiment: Experiment, mesh: Mesh) -> int:
    """Videos of an update: one for every data · fsdp share of the mesh and micro-batch."""
    return mesh.shape["data"] * mesh.shape["fsdp"] * experiment.training.micro_batches


def lower_train_step(experiment: Experiment, number: int, mesh: Mesh, segments: int) -> jax.stages.Lowered:
    """One update of a stage: `segments` of one video for every data · fsdp share of the mesh and micro-batch.

    Args:
        experiment: what runs.
        number: of the stage, from 1.
        mesh: devices, which need not be here.
        segments: of each video.
    """
    training = experiment.training
    stage, before = training.stages[number - 1], training.stages[: number - 1]
    videos = global_batch(experiment, mesh)
    batch = example_batch(experiment, videos, segments)
    denoiser = Denoiser(experiment.model, experiment.guidance)
    state = state_factory(experiment, denoiser, batch, mesh).abstract(stage)
    step = stage_step(experiment, stage, denoiser, state, mesh, first_update=total_steps(before))
    with jax.set_mesh(mesh):
        return step.run.lower(state, _placed(batch, batch_sharding(mesh, videos)))


def lower_generate_step(experiment: Experiment, mesh: Mesh) -> jax.stages.Lowered:
    """One segment of one video: every step of the sampler, then history and memory."""
    batch = example_batch(experiment, 1, 1)
    denoiser = Denoiser(experiment.model, experiment.guidance)
    params = _generating_weights(experiment, mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    prompt = _placed(_prompts(experiment, (1,)), whole)
    guided = experiment.classifier_free.active and experiment.model.encoders is None
    sample = segment_sampler(denoiser, experiment.sampler, experiment.classifier_free)
    with jax.set_mesh(mesh):
        video = jax.eval_shape(functools.partial(start_video, denoiser), params, prompt, batch.reference)
        key, number = jax.eval_shape(lambda: (jax.random.key(0), jnp.zeros((), jnp.int32)))
        arguments = _placed((video, key, number), whole)
        return jax.jit(sample, out_shardings=whole).lower(params, *arguments, prompt, prompt if guided else None)


def lower_decode_step(experiment: Experiment, mesh: Mesh, *, beside: bool = True) -> jax.stages.Lowered:
    """The autoencoder on the largest tile that it decodes, its sizes HunyuanVideo's own: `data.vae` is not read.

    Args:
        experiment: what runs.
        mesh: devices, which need not be here.
        beside: whether the network's weights lie in the same memory, as they do in a generation without `--offload`.

    Raises:
        InputError: the experiment has no autoencoder.
    """
    data = experiment.data
    if not isinstance(data, ClipsData) or not data.vae:
        raise InputError("--step=decode is a tile of an autoencoder, which this experiment has not: set data.vae")
    architecture, whole = VaeArchitecture(), NamedSharding(mesh, PartitionSpec())
    tiling = Tiling(spatial=data.vae_tiles in ("decode", "both"))
    tile = largest_latent_tile(tiling, *experiment.latent_size)
    vae, latents = vae_shapes(architecture), jax.ShapeDtypeStruct((1, *tile, architecture.channels), jnp.float32)
    decode = compiled_network(architecture, HunyuanVaeCodec.dtype, "decode")

    def tile_of(weights: Any, vae: Any, latents: jax.Array) -> jax.Array:
        del weights  # they take their memory all the same
        return decode(vae, latents)

    weights = _generating_weights(experiment, mesh) if beside else None
    with jax.set_mesh(mesh):
        program = jax.jit(tile_of, keep_unused=True, out_shardings=whole)
        return program.lower(weights, _placed(vae, whole), _placed(latents, whole))


def _generating_weights(experiment: Experiment, mesh: Mesh) -> Any:
    """Shapes of the weights that a run of the experiment leaves, as `load_run` reads them: adapters live, and what no
    stage trained as it was held.
    """
    batch = example_batch(experiment, 1, 1)
    denoiser = Denoiser(experiment.model, experiment.guidance)
    return state_factory(experiment, denoiser, batch, mesh).abstract(experiment.training.stages[-1]).averaged


def mesh_on(devices: list, shape: MeshShape) -> Mesh:
    """The mesh over a slice's devices, its default too, which for a run is one device.

    Raises:
        InputError: it has another number of devices.
    """
    return (shape if shape != MeshShape() else dataclasses.replace(shape, data=0)).build(devices)
