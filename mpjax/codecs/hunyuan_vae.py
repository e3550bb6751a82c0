"""HunyuanVideo's autoencoder as a codec: k = 4, space factor 8, latents in the scale that FramePack-F1 was trained on.

1. Scale. A latent is the posterior's mean, or a sample of it, times `scaling_factor` (0.476986). The weights fix that
   scale, so no measured normalisation is put on top.
2. Encoding, as diffusers does by default: tiles of 17 pixel frames, 12 apart (`models/vae_tiling.py`). A stream emits
   latents when their tile is complete; `encode_finish` encodes the shorter tile at the end. A sample's noise depends
   on the seed and on the number of the latent frame alone, and is the same for every video.
3. Decoding, as FramePack-F1's demo does. GroupNorm sees all frames of a call, so a piece of a video does not decode to
   the pixels that it has in the whole. Therefore the first 1 + s latents are decoded together, and then, for every s
   further ones, the last w latents (s = `segment_frames`, w = `window`). Such a window begins with n = w − s latents,
   or as many as there are, that were decoded before, and with their o = 1 + 4 (n − 1) pixel frames. These are faded in
   over the last o frames of before, with weight i / (o − 1) for frame i. So the last o frames stay in the tail until
   the next s latents have come, or `decode_finish` gives them away (docs/backbone.md, section 3.4).

Both directions wait for whole tiles and whole segments, so chunks of any length give the same bits. One tile of one
video at a time fills a device. Where a picture is several tiles, or a batch several videos, those of one shape are
computed at once on as many devices as this process has, unless a mesh is current.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mpjax import config
from mpjax.codecs.base import Tail, check_latents, check_video, latent_frames, pixel_frames
from mpjax.errors import InputError
from mpjax.interop.vae_weights import REMEDY, load_vae_params, read_vae_architecture
from mpjax.models.vae import SPACE_FACTOR, TIME_FACTOR, Posterior, Vae, VaeArchitecture
from mpjax.models.vae_tiling import Network, TileStream, Tiling, TimeTiles, decoding_tiles, encoding_tiles

PosteriorUse = Literal["mean", "sample"]
SpatialTiles = Literal["none", "decode", "both"]
Precision = Literal["float32", "bfloat16"]
TILES = "tiles"  # axis of a mesh


@dataclass(frozen=True, kw_only=True)
class HunyuanVaeCodec:
    """HunyuanVideo's autoencoder; implements `codecs.Codec`.

    The weights are read when they are first needed, and kept for all codecs that name the same ones.

    Attributes:
        weights: the folder of an `AutoencoderKLHunyuanVideo` that diffusers saved, or its safetensors file.
        architecture: sizes of the network, also as JSON holds them; None reads the folder's `config.json`, or takes a
            file for the full model.
        posterior: whether `encode` gives its mean, or a sample.
        seed: of the samples' noise.
        segment_frames, window: s and w above. FramePack-F1: 9 and 18.
        spatial_tiles: which direction cuts pictures above 256 pixels into tiles of that size, blended over 64: `none`,
            `decode` or `both`. At 480×832 tiles need a sixth of the memory and leave seams. FramePack's demo has them
            both ways where less than 60 GB are free, else neither; by default they are not in what training learns.
        dtype: of the network's arithmetic. Norms, and all that happens outside the network, stay in float32.

    Raises:
        InputError: no weights are named, `architecture` is None and they do not exist, or a field is out of its range.
    """

    name: ClassVar[str] = "hunyuan_vae"
    time_factor: ClassVar[int] = TIME_FACTOR
    space_factor: ClassVar[int] = SPACE_FACTOR
    mean: ClassVar[tuple[float, ...]] = ()
    std: ClassVar[tuple[float, ...]] = ()
    weights: str = ""
    architecture: VaeArchitecture | Mapping[str, Any] | None = None
    posterior: str = "mean"
    seed: int = 0
    segment_frames: int = 9
    window: int = 18
    spatial_tiles: str = "decode"
    dtype: str = "float32"

    def __post_init__(self):
        if not self.weights:
            raise InputError(f"codec 'hunyuan_vae' needs weights: {REMEDY}")
        literals = {"posterior": PosteriorUse, "spatial_tiles": SpatialTiles, "dtype": Precision}
        for field, choices in ((name, get_args(literal)) for name, literal in literals.items()):
            if getattr(self, field) not in choices:
                raise InputError(
                    f"codec 'hunyuan_vae' has {field} = {getattr(self, field)!r}: use one of {', '.join(choices)}"
                )
        if not 1 <= self.segment_frames < self.window:
            raise InputError(
                f"codec 'hunyuan_vae' has segment_frames = {self.segment_frames} and window = {self.window}: "
                "give at least one segment frame, and a window longer than that"
            )
        architecture = self.architecture
        if architecture is None:
            architecture = read_vae_architecture(Path(self.weights))
        if not isinstance(architecture, VaeArchitecture):
            architecture = config.build(VaeArchitecture, architecture, "codec.architecture")
        object.__setattr__(self, "architecture", architecture)

    @property
    def sizes(self) -> VaeArchitecture:
        """The architecture, which is never None or JSON by now."""
        assert isinstance(self.architecture, VaeArchitecture)
        return self.architecture

    @property
    def channels(self) -> int:
        """See `Codec.channels`."""
        return self.sizes.channels

    def encode(self, video: np.ndarray) -> np.ndarray:
        """See `Codec.encode`."""
        check_video(self, video)
        latent_frames(self, video.shape[1])
        latents, tail = self.encode_stream(self.encode_start(video.shape[0], *video.shape[2:4]), video)
        return np.concatenate([latents, self.encode_finish(tail)], axis=1)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """See `Codec.decode`."""
        check_latents(self, latents)
        batch, _, rows, columns, _ = latents.shape
        tail = self.decode_start(batch, rows * SPACE_FACTOR, columns * SPACE_FACTOR)
        frames, tail = self.decode_stream(tail, latents)
        return np.concatenate([frames, self.decode_finish(tail)], axis=1)

    def encode_start(self, batch: int, height: int, width: int) -> Tail:
        """What a stream of encoding remembers.

        `latent_frames` so far, int64 `[]`; `waiting`, pixel frames from the start of the next tile on,
        `[b, n, H, W, 3]`; once a tile is done, `edge`, the moments that the next one is blended with.
        """
        waiting = np.zeros((batch, 0, height, width, 3), np.float32)
        return {"latent_frames": np.zeros((), np.int64), "waiting": waiting}

    def encode_stream(self, tail: Tail, frames: np.ndarray) -> tuple[np.ndarray, Tail]:
        """See `Codec.encode_stream`."""
        check_video(self, frames)
        tiles = TimeTiles(tail["waiting"], tail.get("edge"))
        moments, tiles = self._tiles(encoding_tiles, "encode").push(tiles, np.asarray(frames, np.float32))
        latents = self._latents(tail, moments)
        done = np.asarray(tail["latent_frames"] + latents.shape[1], np.int64)
        edge = {} if tiles.edge is None else {"edge": tiles.edge}
        return latents, {"latent_frames": done, "waiting": tiles.waiting.copy(), **edge}

    def encode_finish(self, tail: Tail) -> np.ndarray:
        """See `Codec.encode_finish`."""
        tiles = TimeTiles(tail["waiting"], tail.get("edge"))
        return self._latents(tail, self._tiles(encoding_tiles, "encode").finish(tiles))

    def decode_start(self, batch: int, height: int, width: int) -> Tail:
        """What a stream of decoding remembers.

        `latents`, the newest ones, `[b, n, h, w, c]`; `waiting`, int64 `[]`, how many of them are not decoded yet;
        `frames`, the pixel frames that are not final, `[b, o, H, W, 3]`, not clipped.
        """
        size = height // SPACE_FACTOR, width // SPACE_FACTOR
        return {
            "latents": np.zeros((batch, 0, *size, self.channels), np.float32),
            "waiting": np.zeros((), np.int64),
            "frames": np.zeros((batch, 0, height, width, 3), np.float32),
        }

    def decode_stream(self, tail: Tail, latents: np.ndarray) -> tuple[np.ndarray, Tail]:
        """See `Codec.decode_stream`."""
        check_latents(self, latents)
        joined = np.concatenate([tail["latents"], np.asarray(latents, np.float32)], axis=1)
        tail = {**tail, "latents": joined, "waiting": np.asarray(tail["waiting"] + latents.shape[1], np.int64)}
        final = [tail["frames"][:, :0]]
        while tail["waiting"] >= (count := self.segment_frames + (tail["latents"].shape[1] == tail["waiting"])):
            frames, tail = self._decode_next(tail, int(count))
            final.append(frames)
        return np.concatenate(final, axis=1), tail

    def decode_finish(self, tail: Tail) -> np.ndarray:
        """See `Codec.decode_finish`; latents that do not fill a segment are decoded with their window."""
        final = [tail["frames"][:, :0]]
        if tail["waiting"]:
            frames, tail = self._decode_next(tail, int(tail["waiting"]))
            final.append(frames)
        return np.concatenate([*final, np.clip(tail["frames"], -1, 1)], axis=1)

    def spec(self) -> dict[str, Any]:
        """See `Codec.spec`."""
        return {"name": self.name, **config.to_dict(self)}

    def with_normalisation(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """The codec as it is: its scale belongs to the weights (point 1 above)."""
        return self

    def _decode_next(self, tail: Tail, count: int) -> tuple[np.ndarray, Tail]:
        """Decodes the next `count` waiting latents: frames that are final now, and the tail."""
        latents, waiting = tail["latents"], int(tail["waiting"])
        end = latents.shape[1] - waiting + count
        scaled = latents[:, :end] / np.float32(self.sizes.scaling_factor)
        frames = soft_append(tail["frames"], self._tiles(decoding_tiles, "decode").whole(scaled))
        past = min(self.window - self.segment_frames, end)
        final, held = np.split(frames, [frames.shape[1] - pixel_frames(self, past)], axis=1)
        after = {"latents": latents[:, end - past :].copy(), "waiting": np.asarray(waiting - count, np.int64)}
        return np.clip(final, -1, 1), {**after, "frames": held.copy()}

    def _latents(self, tail: Tail, moments: Sequence[np.ndarray]) -> np.ndarray:
        """Scaled latents of the moments that follow a tail."""
        batch, _, height, width, _ = tail["waiting"].shape
        empty = np.zeros((batch, 0, height // SPACE_FACTOR, width // SPACE_FACTOR, 2 * self.channels), np.float32)
        posterior = Posterior.of(jnp.asarray(np.concatenate([empty, *moments], axis=1)))
        latents = np.array(posterior.mean)
        if self.posterior == "sample":
            key, first = jax.random.key(self.seed), int(tail["latent_frames"])
            for n in range(latents.shape[1]):
                frame = Posterior(posterior.mean[:, n], posterior.logvar[:, n])
                latents[:, n] = frame.sample(jax.random.fold_in(key, first + n))
        return latents * np.float32(self.sizes.scaling_factor)

    def _tiles(self, tiles: Callable[[Network, Tiling], TileStream], method: str) -> TileStream:
        """The network's `method` on tiles along time, and in space where asked."""

        def run(pieces: Sequence[np.ndarray]) -> list[np.ndarray]:
            videos = [video[None] for x in pieces for video in x]
            rest = iter(self._all(method, videos))
            return [np.concatenate(list(itertools.islice(rest, len(x)))) for x in pieces]

        return tiles(run, Tiling(spatial=self.spatial_tiles in (method, "both")))

    def _all(self, method: str, videos: list[np.ndarray]) -> list[np.ndarray]:
        """The network's `method` of each of the videos `[1, t, h, w, c]`; those of one shape on all devices at once."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for number, video in enumerate(videos):
            alike.setdefault(video.shape, []).append(number)
        devices = _devices() if any(len(numbers) > 1 for numbers in alike.values()) else ()
        params = _parameters(self.weights, self.sizes, devices)
        results = list(videos)
        for numbers in alike.values():
            together = devices if len(numbers) > 1 else ()
            network = compiled_network(self.sizes, self.dtype, method, together)
            # Without `together` one at a time, on the first device.
            here = params if together or not devices else jax.tree.map(lambda x: x.addressable_data(0), params)
            count = max(len(together), 1)
            for first in range(0, len(numbers), count):
                turn = numbers[first : first + count]
                batch = [videos[number] for number in turn]
                batch += batch[-1:] * (count - len(turn))  # devices without a video of their own repeat the last one
                done = np.asarray(network(here, np.concatenate(batch)))
                for number, result in zip(turn, done, strict=False):
                    results[number] = result[None]
        return results


def soft_append(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`[b, n, H, W, 3]` frames of a window with its first ones faded in over the `[b, o, H, W, 3]` held before."""
    overlap = before.shape[1]
    weight = np.linspace(1, 0, overlap, dtype=np.float32)[:, None, None, None]
    return np.concatenate([weight * before + (1 - weight) * after[:, :overlap], after[:, overlap:]], axis=1)


def _devices() -> tuple[jax.Device, ...]:
    """All of this process, where there are several; none under a mesh, which does not take arrays of other devices."""
    devices = tuple(jax.local_devices())
    return devices if len(devices) > 1 and jax.sharding.get_abstract_mesh().empty else ()


@functools.lru_cache(maxsize=1)  # a gigabyte on each device
def _parameters(weights: str, architecture: VaeArchitecture, devices: tuple[jax.Device, ...]) -> dict[str, Any]:
    """The parameters on each of the devices, or on the default one."""
    params = load_vae_params(Path(weights), architecture)
    return jax.device_put(params, NamedSharding(_line(devices), PartitionSpec()) if devices else None)


@functools.cache
def compiled_network(
    architecture: VaeArchitecture, dtype: str, method: str, devices: tuple[jax.Device, ...] = ()
) -> jax.stages.Wrapped:
    """The program that runs tiles, `encode` or `decode`: (parameters, `[n, t, h, w, c]`) → what `vae.Vae` makes.

    n is 1; or the number of `devices`, each of which computes one tile, with the bits of n = 1.
    """
    vae = Vae(architecture, jnp.dtype(dtype))

    def run(params: dict[str, Any], x: jax.Array) -> Any:
        return vae.apply({"params": params}, x, method=method)

    if not devices:
        return jax.jit(run)
    each = PartitionSpec(TILES)
    # Loops over a tile begin with zeros that do not vary over the devices, which is what `check_vma` would object to.
    together = jax.shard_map(
        run, mesh=_line(devices), in_specs=(PartitionSpec(), each), out_specs=each, check_vma=False
    )
    return jax.jit(together)


def _line(devices: tuple[jax.Device, ...]) -> Mesh:
    return Mesh(np.array(devices), (TILES,))
