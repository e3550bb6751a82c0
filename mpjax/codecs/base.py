"""The codec protocol: what every pixel <-> latent transform offers, whatever it is made of.

Frames. A codec is causal in time: the first pixel frame has a latent frame of its own, and every further latent frame
stands for `time_factor` = k pixel frames, so t latent frames are 1 + k (t - 1) pixel frames.

Normalisation. `encode` returns (raw - mean) / std per channel and `decode` undoes it, so a network sees unit scale.
`mean` and `std` are empty tuples (0 and 1) until a dataset has measured them. Records hold raw latents.

Streaming. `encode_stream` and `decode_stream` take a tail and return the next one, together with what no later frame
can change; a codec that blends neighbours holds some back. `encode_finish` and `decode_finish` give what a tail holds
back, as it is if the video ends there. However a video is cut, the concatenated results are the bits of one `encode`
or `decode` call. A tail is a flat dict of numpy arrays, never changed in place: everything a resumed generation needs,
ready for a safetensors file.
"""

from typing import Any, Protocol, Self

import numpy as np

from mpjax.errors import InputError

Tail = dict[str, np.ndarray]


class Codec(Protocol):
    """What models, data and generation may ask of a codec. Implementations are frozen dataclasses."""

    @property
    def name(self) -> str:
        """The name `codecs.create` knows it by."""

    @property
    def time_factor(self) -> int:
        """k: pixel frames per latent frame after the first."""

    @property
    def space_factor(self) -> int:
        """Pixels per latent cell along height and width."""

    @property
    def channels(self) -> int:
        """Channels c of a latent."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Per-channel mean of raw latents; empty means zeros."""

    @property
    def std(self) -> tuple[float, ...]:
        """Per-channel standard deviation of raw latents; empty means ones."""

    def encode(self, video: np.ndarray) -> np.ndarray:
        """Pixels to latents.

        Args:
            video: float32 `[b, 1 + k (t - 1), H, W, 3]` in [-1, 1]; H and W are multiples of `space_factor`.

        Returns:
            float32 `[b, t, H / space_factor, W / space_factor, c]`, normalised.

        Raises:
            InputError: the number of frames or the size does not fit the codec.
        """

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Latents to pixels.

        Args:
            latents: `[b, t, h, w, c]`, normalised.

        Returns:
            float32 `[b, 1 + k (t - 1), h * space_factor, w * space_factor, 3]`, clipped to [-1, 1].

        Raises:
            InputError: the number of channels is not the codec's.
        """

    def encode_start(self, batch: int, height: int, width: int) -> Tail:
        """The tail before the first pixel frame of a stream; `height` and `width` in pixels."""

    def encode_stream(self, tail: Tail, frames: np.ndarray) -> tuple[np.ndarray, Tail]:
        """Latents `[b, m, h, w, c]` that are complete after the next `[b, n, H, W, 3]` pixel frames; m may be 0."""

    def encode_finish(self, tail: Tail) -> np.ndarray:
        """Latents `[b, m, h, w, c]` that only the end of the video completes; m may be 0."""

    def decode_start(self, batch: int, height: int, width: int) -> Tail:
        """The tail before the first latent frame of a stream; `height` and `width` in pixels."""

    def decode_stream(self, tail: Tail, latents: np.ndarray) -> tuple[np.ndarray, Tail]:
        """Pixel frames `[b, m, H, W, 3]` that are final after the next `[b, n, h, w, c]` latents; m may be 0."""

    def decode_finish(self, tail: Tail) -> np.ndarray:
        """The pixel frames `[b, m, H, W, 3]` that are still to come if the video ends here; m may be 0."""

    def spec(self) -> dict[str, Any]:
        """The codec as a JSON-able dict, normalisation included; `codecs.from_spec` rebuilds it."""

    def with_normalisation(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """The same codec with other per-channel statistics; empty tuples take the normalisation away.

        A codec whose scale is fixed otherwise stays as it is.

        Raises:
            InputError: not one finite mean and one positive std per channel.
        """


def pixel_frames(codec: Codec, latents: int) -> int:
    """Pixel frames of `latents` >= 1 latent frames: 1 + k (t - 1)."""
    return 1 + codec.time_factor * (latents - 1)


def latent_frames(codec: Codec, pixels: int) -> int:
    """Latent frames of `pixels` pixel frames.

    Raises:
        InputError: `pixels` is not 1 + k (t - 1) for a whole t >= 1.
    """
    groups, rest = divmod(pixels - 1, codec.time_factor)
    if pixels < 1 or rest:
        raise InputError(
            f"a video of {pixels} frames does not fit codec {codec.name!r}: "
            f"give 1 + a multiple of {codec.time_factor} frames"
        )
    return 1 + groups


def normalise(codec: Codec, raw: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Raw latents `[..., c]` of any float dtype to normalised float32, in `out` where it is given."""
    out = np.empty(np.shape(raw), np.float32) if out is None else out
    out[...] = raw
    if codec.mean:
        # Spread over a frame: NumPy's inner loop over a few channels alone takes longer.
        mean, std = (np.tile(np.asarray(x, np.float32), (*out.shape[-3:-1], 1)) for x in (codec.mean, codec.std))
        out -= mean
        out /= std
    return out


def denormalise(codec: Codec, latents: np.ndarray) -> np.ndarray:
    """Normalised latents `[..., c]` to raw float32: the inverse of `normalise`."""
    latents = np.asarray(latents, np.float32)
    if not codec.mean:
        return latents
    return latents * np.asarray(codec.std, np.float32) + np.asarray(codec.mean, np.float32)


def check_video(codec: Codec, video: np.ndarray) -> None:
    """Raise InputError unless `video` is `[b, n, H, W, 3]` with sides that are multiples of `space_factor`."""
    if video.ndim != 5 or video.shape[-1] != 3:
        raise InputError(f"codec {codec.name!r} encodes video [b, t, H, W, 3], got an array of shape {video.shape}")
    height, width = video.shape[2:4]
    if height % codec.space_factor or width % codec.space_factor:
        raise InputError(
            f"a picture of {height}x{width} does not fit codec {codec.name!r}: "
            f"give a height and a width that are multiples of {codec.space_factor}"
        )


def check_latents(codec: Codec, latents: np.ndarray) -> None:
    """Raise InputError unless `latents` is `[b, t, h, w, c]` with the codec's c."""
    if latents.ndim != 5 or latents.shape[-1] != codec.channels:
        raise InputError(
            f"codec {codec.name!r} decodes latents [b, t, h, w, {codec.channels}], "
            f"got an array of shape {latents.shape}"
        )


def check_normalisation(codec: Codec) -> None:
    """Raise InputError unless mean and std are both empty, or hold one finite and one positive number per channel."""
    mean, std = codec.mean, codec.std
    fits = len(mean) == len(std) == codec.channels and np.isfinite(mean + std).all() and min(std, default=0) > 0
    if (mean or std) and not fits:
        raise InputError(
            f"the normalisation of codec {codec.name!r} needs {codec.channels} finite means and {codec.channels} "
            f"positive standard deviations, got mean={mean} and std={std}"
        )
