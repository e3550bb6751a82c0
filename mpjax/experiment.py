"""One experiment: the typed form of a config file, with the checks that span rooms."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import ClassVar

import jax

from mpjax import codecs, config
from mpjax.codecs.hunyuan_vae import HunyuanVaeCodec
from mpjax.data.raw.filters import Filters
from mpjax.data.raw.geometry import Geometry
from mpjax.data.raw.shots import ShotDetector
from mpjax.data.recallworld.world import World
from mpjax.diffusion.forcing import Direct
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Euler, UniPC
from mpjax.errors import InputError
from mpjax.models.architecture import Architecture
from mpjax.models.lora import Lora
from mpjax.models.quantization import Quantization
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.processes import Processes
from mpjax.training.curriculum import Stage
from mpjax.training.nonfinite import AnyPolicy, RollBack, Stop
from mpjax.training.trainable import LORA_SETS

BASE_DTYPES = ("float32", "bfloat16")
# Fields of `Training` that leave weights where they are.
BASE_FIELDS = ("lora", "base_dtype", "base_quantization")
# Values of `Training.host_state`, and the fields of a training state whose arrays they keep in the host.
HOST_STATES = {"none": (), "averages": ("ema",), "optimizer": ("opt_state",), "both": ("ema", "opt_state")}
# Fields of `Training` that may change between two starts of one run.
FREE_FIELDS = (
    "log_every",
    "validate_every",
    "sample_every",
    "checkpoint_every",
    "validation_batches",
    "samples",
    "keep_checkpoints",
    "keep_checkpoints_every",
    "host_state",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallWorldData:
    """Train on RecallWorld, rendered as it is needed.

    Attributes:
        world: scene and geometry.
        return_focus: probability that a batch of a scene with a return trains the segment of the return.
    """

    kind: ClassVar[str] = "recallworld"
    world: World = World()
    return_focus: float = 0.7


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixedDataset:
    """One dataset of a mixture.

    Attributes:
        path: dataset folder.
        weight: how often it is drawn from, relative to the others.
    """

    path: str
    weight: float = 1.0

    def __post_init__(self):
        if not 0 < self.weight < float("inf"):
            raise InputError(f"weight is {self.weight}: give a positive number")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipsData:
    """Train on latents that `mpjax encode` wrote; height to max_segments say how it writes them.

    Attributes:
        path: dataset folder.
        mixture: datasets to train on, with their weights; empty: `path` alone.
        text_dropout: share of the training clips that show the empty prompt, for classifier-free guidance.
        height, width: pixels after resize and centre crop.
        buckets: (height, width) of the sizes that records may have; empty: `height` × `width` alone.
        fps: frames per second.
        time_factor, space_factor, channels: of the latents; of the autoencoder they are 4, 8 and 16.
        vae: folder of HunyuanVideo's autoencoder; empty: block DCT, which has no weights.
        vae_tiles: where it goes through pictures above 256 pixels in tiles: `none`, `decode`, or `both`, which also
            encodes in them (`spatial_tiles` of `codecs.hunyuan_vae`).
        encoders: folder of LLaMA, CLIP and SigLIP, whose embeddings `encode` stores; empty: the network's own encoders
            read bytes and latents.
        max_segments: longest record, in segments; None: what 60 s hold. Longer clips are cut.
        validation_fraction: share of the videos that is held out.
        shots: how `data scan` finds where one shot ends.
        filters: which clips `data scan` keeps.
    """

    kind: ClassVar[str] = "clips"
    path: str
    mixture: tuple[MixedDataset, ...] = ()
    text_dropout: float = 0.0
    height: int = 480
    width: int = 832
    buckets: tuple[tuple[int, int], ...] = ()
    fps: int = 24
    time_factor: int = 4
    space_factor: int = 8
    channels: int = 16
    vae: str = ""
    vae_tiles: str = "decode"
    encoders: str = ""
    max_segments: int | None = None
    validation_fraction: float = 0.1
    shots: ShotDetector = ShotDetector()
    filters: Filters = Filters()

    def __post_init__(self):
        for name in ("height", "width", "fps", "time_factor", "space_factor", "channels", "max_segments"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: it must be at least 1")
        if not 0 <= self.text_dropout < 1:
            raise InputError(f"text_dropout is {self.text_dropout}: it must lie in [0, 1)")
        if not 0 <= self.validation_fraction < 1:
            raise InputError(f"validation_fraction is {self.validation_fraction}: it must lie in [0, 1)")
        factors = (HunyuanVaeCodec.time_factor, HunyuanVaeCodec.space_factor)
        if self.vae and (self.time_factor, self.space_factor) != factors:
            self._check_vae()
            raise InputError(
                f"vae has latents of time_factor {factors[0]} and space_factor {factors[1]}: set both fields so"
            )

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The picture sizes (height, width) that records may have."""
        return self.buckets or ((self.height, self.width),)

    def longest(self, segment_frames: int) -> int:
        """`max_segments`, with what None means."""
        return self.max_segments or max(60 * self.fps // (self.time_factor * segment_frames), 1)

    def geometry(self, segment_frames: int) -> Geometry:
        """The clips that `data scan` cuts, for segments of so many latent frames."""
        return Geometry(
            fps=float(self.fps),
            segment_frames=self.time_factor * segment_frames,
            max_segments=self.longest(segment_frames),
            buckets=self.sizes,
        )

    def codec(self) -> codecs.Codec:
        """Pixels to latents, without normalisation.

        Raises:
            InputError: the autoencoder is missing or has other channels.
        """
        if not self.vae:
            fields = {"time_factor": self.time_factor, "space_factor": self.space_factor, "channels": self.channels}
            return codecs.create("dct", **fields)
        if not Path(self.vae).exists():
            raise InputError(
                f"data.vae is {self.vae}: no such folder; give that of the autoencoder's config and weights"
            )
        codec = codecs.create("hunyuan_vae", weights=str(Path(self.vae).absolute()), spatial_tiles=self.vae_tiles)
        if codec.channels != self.channels:
            raise InputError(f"data.channels is {self.channels}, but the autoencoder has {codec.channels}: set it so")
        return codec

    def _check_vae(self) -> None:
        if not Path(self.vae).exists():
            raise InputError(f"data.vae is {self.vae}: no such folder; give that of the autoencoder's weights")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How a run goes.

    Attributes:
        stages: one after another (`training.curriculum`).
        segments: static number of segments of a batch; the curriculum stays within it.
        batch_size: videos an update.
        micro_batches: equal parts whose gradients are accumulated.
        ema_decay: of the weights that validation and generation use.
        log_every, checkpoint_every: in updates.
        validate_every, sample_every: in updates; 0 switches off.
        validation_batches: held-out batches a validation loss averages.
        samples: videos drawn from the EMA with fixed seeds.
        keep_checkpoints: newest checkpoints kept.
        keep_checkpoints_every: those of multiples of so many updates are kept besides; 0: none.
        nonfinite: what becomes of an update whose loss or gradient is not finite (`training.nonfinite`).
        lora: an adapter, which stages train by `trainable="lora"`, or `lora_and_memory` (`models.lora`).
        base_dtype: of the weights that no stage trains, `float32` or `bfloat16`: they stay in those of `--init`, and
            out of averages and checkpoints. None: the run owns the whole network in float32, unless it trains an
            adapter, whose base is float32 then.
        base_quantization: which of these weights are quantised, from what `base_dtype` (None: float32) makes of them;
            None: none. Any `model.remat` but "none" keeps those of one block at a time multiplied out.
        host_state: what is in the host's page-locked memory between updates and leaves a device's to activations:
            `none`, `averages`, `optimizer` or `both`. All of it is on the devices for a moment when a run
            or a stage begins, and saving waits for its files. The bits of a run do not depend on it, and a run may go
            on with another.
    """

    stages: tuple[Stage, ...]
    segments: int
    batch_size: int = 1
    micro_batches: int = 1
    ema_decay: float = 0.999
    log_every: int = 50
    validate_every: int = 0
    sample_every: int = 0
    checkpoint_every: int = 1000
    validation_batches: int = 4
    samples: int = 4
    keep_checkpoints: int = 2
    keep_checkpoints_every: int = 0
    nonfinite: AnyPolicy = Stop()
    lora: Lora | None = None
    base_dtype: str | None = None
    base_quantization: Quantization | None = None
    host_state: str = "none"

    @property
    def base_field(self) -> str | None:
        """The name of the field that gives the run a base; None: there is none."""
        return next((name for name in BASE_FIELDS if getattr(self, name) is not None), None)

    @property
    def held_in(self) -> str | None:
        """`base_dtype`, with what None means to a run that has a base nevertheless; None: there is none."""
        return None if self.base_field is None else self.base_dtype or "float32"

    def __post_init__(self):
        if not self.stages:
            raise InputError("stages is empty: give at least one stage")
        at_least_one = ("segments", "batch_size", "micro_batches", "log_every", "checkpoint_every")
        for name in (*at_least_one, "validation_batches", "samples", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("validate_every", "sample_every", "keep_checkpoints_every"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 0, which switches it off")
        if not 0 <= self.ema_decay <= 1:
            raise InputError(f"ema_decay is {self.ema_decay}: it must lie in [0, 1]")
        if self.batch_size % self.micro_batches:
            raise InputError(f"micro_batches is {self.micro_batches}: it must divide batch_size = {self.batch_size}")
        for i, stage in enumerate(self.stages):
            if max(segments for _, segments in stage.curriculum) > self.segments:
                raise InputError(f"stages[{i}].curriculum goes beyond training.segments = {self.segments}: raise that")
            if self.lora is None and stage.trainable in LORA_SETS:
                raise InputError(f"stages[{i}].trainable is {stage.trainable!r}: set training.lora to its rank")
            if self.lora is not None and stage.trainable == "all":
                raise InputError(f"stages[{i}].trainable is 'all', but training.lora freezes weights: use 'lora'")
            if self.base_field is not None and stage.trainable == "all":
                raise InputError(
                    f"stages[{i}].trainable is 'all', which leaves no weights for {self.base_field}: set that to None"
                )
        if self.host_state not in HOST_STATES:
            raise InputError(f"host_state is {self.host_state!r}: it must be {', '.join(HOST_STATES)}")
        if self.base_dtype not in (None, *BASE_DTYPES):
            raise InputError(f"base_dtype is {self.base_dtype!r}: it must be None, {' or '.join(BASE_DTYPES)}")
        if self.lora is not None and not any(stage.trainable in LORA_SETS for stage in self.stages):
            raise InputError("training.lora is set, but no stage trains it: set trainable to 'lora' in one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run depends on.

    Attributes:
        seed: of initialisation, data order and noise.
        data: where batches come from.
        model: shapes.
        guidance: distilled guidance scale fed to a network with `guidance_embeds`.
        training: how the run goes.
        sampler: for samples, evaluation and generation.
        classifier_free: guidance away from the empty prompt, in all of these; generation may name another negative.
        mesh: devices.
        processes: that share them, and how long they wait for one another.
    """

    seed: int = 0
    data: RecallWorldData | ClipsData
    model: Architecture
    guidance: float = 1.0
    training: Training
    sampler: Euler | UniPC = Euler()
    classifier_free: ClassifierFree = UNGUIDED
    mesh: MeshShape = MeshShape()
    processes: Processes = Processes()

    def __post_init__(self):
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}: it must be 0 to 2^32 − 1")
        embeddings = isinstance(self.data, ClipsData) and bool(self.data.encoders)
        if self.model.encoders is None and not embeddings:
            raise InputError(
                "model.encoders is None: keep the built-in prompt and image encoders, or give data.encoders"
            )
        if self.model.encoders is not None and embeddings:
            raise InputError("data.encoders and model.encoders both encode prompts: set model.encoders to None")
        if embeddings and self.classifier_free.active:
            raise InputError("classifier_free needs a negative prompt, which embeddings lack: leave its scale at 1")
        if self.model.framepack.backwards:
            raise InputError(
                "model.framepack.rope_layout is 'framepack_f0', which only generates: train with 'framepack_f1'"
            )
        patch, size = self.model.patch, self.latent_size
        if isinstance(self.data, ClipsData):
            unit = self.data.space_factor * patch
            sides = [("height", self.data.height), ("width", self.data.width)]
            sides += [("buckets", pixels) for bucket in self.data.buckets for pixels in bucket]
            for side, pixels in sides:
                if pixels % unit or pixels < 1:
                    raise InputError(
                        f"data.{side} is {pixels}: it must be a multiple of {unit}, data.space_factor "
                        f"{self.data.space_factor} times model.patch {patch}"
                    )
            self._check_sizes(self.data)
        elif size[0] % patch or size[1] % patch:
            raise InputError(f"model.patch is {patch}: it must divide the latents' {size[0]} × {size[1]}")
        if isinstance(self.data, RecallWorldData):
            world, pack = self.data.world, self.model.framepack
            assert self.model.encoders is not None  # checked above
            pairs = [
                ("model.framepack.segment_frames", pack.segment_frames, "segment_frames", world.segment_frames),
                ("model.framepack.history_frames", pack.history_frames, "reach", tuple(world.reach)),
                ("model.encoders.prompt_bytes", self.model.encoders.prompt_bytes, "prompt_bytes", world.prompt_bytes),
                ("model.channels", self.model.channels, "channels (RGB)", 3),
            ]
            if world.has_return:
                shortest = min(segments for stage in self.training.stages for _, segments in stage.curriculum)
                if shortest < world.entries + 1:
                    raise InputError(
                        f"training.stages has a curriculum of {shortest} segments, but scene {world.scene} needs "
                        f"{world.entries + 1}: the entry and a return"
                    )
            for name, value, other, wanted in pairs:
                if value != wanted:
                    raise InputError(f"{name} is {value}, but data.world has {other} = {wanted}: make them equal")
        elif self.model.channels != self.data.channels:
            raise InputError(
                f"model.channels is {self.model.channels}, but data.channels is {self.data.channels}: make them equal"
            )

    def _check_sizes(self, data: ClipsData) -> None:
        """Batches of several sizes suit neither every network nor every forcing."""
        if len(set(data.sizes)) == 1:
            return
        if self.model.encoders is not None:
            raise InputError("data.buckets has several sizes, but model.encoders read one: give data.encoders, or one")
        for i, stage in enumerate(self.training.stages):
            if jax.tree.leaves(jax.eval_shape(lambda forcing=stage.forcing: forcing.init((1,) * 6))):
                raise InputError(
                    f"training.stages[{i}].forcing {stage.forcing.kind} carries latents from batch to batch, which "
                    "then need one size: give data.buckets one, or choose another forcing"
                )

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of the latents."""
        data = self.data
        if isinstance(data, RecallWorldData):
            return data.world.frame_size, data.world.frame_size
        return data.height // data.space_factor, data.width // data.space_factor


def load(path: str, overrides: tuple[str, ...] | list[str] = ()) -> Experiment:
    """Reads and checks `FILE.py[:ARGUMENT]` with `--config.field=value` overrides.

    Raises:
        InputError: naming the file or field, and the remedy.
    """
    return config.build(Experiment, config.load(path, overrides))


def fingerprint(experiment: Experiment) -> str:
    """A short hash of everything that decides the result of training; what is only looked at or kept does not,
    nor where the state waits, mesh and processes, so that a run may go on with other devices.
    """
    fields = config.to_dict(experiment)
    for name in FREE_FIELDS:
        fields["training"].pop(name)
    fields.pop("mesh")
    fields.pop("processes")
    policy = experiment.training.nonfinite
    fields["training"]["nonfinite"].pop("limit", None)  # when to give up, which a run may think over
    if isinstance(policy, RollBack):
        fields["training"]["checkpoint_every"] = experiment.training.checkpoint_every  # what it goes back to
    # Younger than the first runs: at their defaults they do not count, so that those runs go on.
    if policy == Stop():
        fields["training"].pop("nonfinite")
    for name in BASE_FIELDS:
        if fields["training"][name] is None:
            fields["training"].pop(name)
    if (dtype := experiment.training.held_in) is not None:
        fields["training"]["base_dtype"] = dtype  # None may mean it, too
    if isinstance(experiment.data, RecallWorldData):
        for name in ("anchor", "turn"):
            if not fields["data"]["world"][name]:
                fields["data"]["world"].pop(name)
    if isinstance(experiment.data, ClipsData):
        for name in ("shots", "filters"):  # they decide which clips are encoded, before any training
            fields["data"].pop(name)
        defaults = {"vae": "", "vae_tiles": "decode", "encoders": "", "mixture": [], "text_dropout": 0.0, "buckets": []}
        for name, default in defaults.items():
            if fields["data"][name] == default:
                fields["data"].pop(name)
        fields["data"]["max_segments"] = experiment.data.longest(experiment.model.framepack.segment_frames)
    for stage, values in zip(experiment.training.stages, fields["training"]["stages"], strict=True):
        if stage.repeat == 1:
            values.pop("repeat")
        if stage.forcing == Direct():
            values["forcing"] = {"kind": "direct"}
    if experiment.classifier_free == UNGUIDED:
        fields.pop("classifier_free")
    if isinstance(experiment.sampler, Euler):
        fields["sampler"].pop("kind")
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
