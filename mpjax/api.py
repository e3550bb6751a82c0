"""Generating from Python.

    import mpjax

    model = mpjax.load("runs/recall")
    frames = model.generate(["a toy enters", "a ball bounces"], seconds=5, seed=0)  # uint8 [20, 8, 8, 3]

    state = model.start("a toy enters")
    shown, state = model.next_segment(state, "a toy enters")  # uint8 [4, 8, 8, 3]
    state = model.update_memory(state, shown)  # a segment may also be given
    shown, state = model.next_segment(state, "the toy stays")

A state is immutable: keep one, and go on from it as often as you like.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mpjax.errors import InputError
from mpjax.generation.adapters import Adapters
from mpjax.generation.conditioner import check_text, conditioner_of
from mpjax.generation.first_frame import held_out, latents_of, read_picture, shown, to_float
from mpjax.generation.request import Request, make_plan
from mpjax.generation.rollout import Rollout
from mpjax.generation.sampling import SamplingRequest, plan_sampling
from mpjax.generation.state import GenerationState
from mpjax.models.quantization import Quantization
from mpjax.parallel.mesh import ONE_DEVICE, MeshShape
from mpjax.weights import TrainedRun, load_run


def load(
    run: str | Path,
    sampling: SamplingRequest | None = None,
    encoders: str | Path | None = None,
    mesh: MeshShape = ONE_DEVICE,
    lora: Sequence[str] = (),
    lora_live: bool = False,
    quantization: Quantization | None = None,
    offload: bool = False,
) -> "Model":
    """The newest EMA weights of a run folder that `python -m mpjax train` or `convert` wrote.

    Args:
        run: the folder.
        sampling: changes to how it draws, for example `mpjax.SamplingRequest(sampler="unipc", steps=10)`.
        encoders: folder of LLaMA, CLIP and SigLIP, for a network without encoders of its own.
        mesh: devices that share weights and work, for example `mpjax.MeshShape(fsdp=4)`; the default is one.
        lora: LoRA files or runs, each `FILE` or `FILE:WEIGHT`, for example `["style.safetensors:0.8"]`.
        lora_live: apply them at every layer; else they are folded into the weights once, unless these are quantised.
        quantization: keep the large weights in 8 bits, for example `mpjax.Quantization(format="int8")`.
        offload: keep the weights in the host's memory while the autoencoder decodes.

    Raises:
        InputError: no run folder, one without a finished checkpoint, a change or an adapter that does not suit it, or a
            mesh of other devices than there are.
    """
    adapters = Adapters.parse(lora, lora_live)
    trained = adapters.put_on(load_run(Path(run), mesh=mesh, quantization=quantization))
    return Model(trained, sampling or SamplingRequest(), None if encoders is None else Path(encoders), offload)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """Where a video stands, as `Model.start` begins it.

    Attributes:
        generation: all that its rest depends on besides weights and prompts.
        picture: the first frame as it was given, uint8 `[H, W, 3]`; pretrained encoders read it with every prompt.
    """

    generation: GenerationState
    picture: np.ndarray

    @property
    def segment(self) -> int:
        """Segments that exist, given or generated."""
        return int(self.generation.segment)


class Model:
    """A trained model."""

    def __init__(self, trained: TrainedRun, sampling: SamplingRequest, encoders: Path | None, offload: bool):
        """Use `load`."""
        self._run, self._step, self._sampling, self._encoders = trained.run, trained.step, sampling, encoders
        self._plan = plan_sampling(trained.run, sampling)
        self._condition = conditioner_of(trained.run, encoders)
        self._rollout = Rollout.of(trained, self._plan, offload=offload)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self._run.fps

    @property
    def step(self) -> int:
        """Updates that made the weights."""
        return self._step

    @property
    def segment_frames(self) -> int:
        """Pixel frames of a segment."""
        return self._rollout.segment_frames

    def generate(
        self,
        prompt: str | Sequence[str] = (),
        image: str | Path | np.ndarray | None = None,
        seconds: float = 5.0,
        seed: int = 0,
    ) -> np.ndarray:
        """A whole video in memory; the same frames that `python -m mpjax generate` writes.

        Args:
            prompt: one, or one a segment of which the last goes on; none: the words that belong to the first frame.
            image: first frame, a file or uint8 `[H, W, 3]`, of any size; None: a held-out one of the run's dataset.
            seconds: length.
            seed: of the noise, and of the held-out first frame.

        Returns:
            uint8 `[n, H, W, 3]`, n = round(seconds · fps).

        Raises:
            InputError: a prompt is too long or belongs to no segment, the image is none, or the length is not above 0.
        """
        one = isinstance(prompt, str) or not isinstance(prompt, Sequence)
        prompts: tuple = (prompt,) if one else tuple(prompt)
        request = Request(
            prompts=prompts, image=image, seconds=seconds, seed=seed, sampling=self._sampling, encoders=self._encoders
        )
        plan = make_plan(self._run, self.step, request)
        frame, state = self._rollout.start(plan.prompt(0), plan.reference, seed, plan.segments)
        shown = [frame]
        for segment in range(plan.segments):
            frames, state = self._rollout.generate(state, plan.prompt(segment), plan.negative)
            shown.append(frames)
        return np.concatenate([*shown, self._rollout.finish(state)])[: plan.frames]

    def start(
        self, prompt: str, image: str | Path | np.ndarray | None = None, seed: int = 0, segments: int = 0
    ) -> State:
        """The state before the first segment; arguments as in `generate`, `prompt` is that of the first segment.

        A network that generates a video from its end must be told how many `segments` there will be.

        Raises:
            InputError: as `generate`.
        """
        check_text(prompt)
        if image is None:
            reference = held_out(self._run, seed)[0]
            picture = shown(self._run, reference)
        else:
            picture = read_picture(self._run, image)
            reference = latents_of(self._run, picture)
        _, generation = self._rollout.start(self._condition(prompt, picture), reference, seed, segments)
        return State(generation=generation, picture=picture)

    def next_segment(self, state: State, prompt: str) -> tuple[np.ndarray, State]:
        """Generates a segment: its frames, uint8 `[segment_frames, H, W, 3]`, and the state after it.

        Under a codec that blends neighbouring segments they are the frames that have become final, of this segment and
        of those before; `finish` gives the rest.

        Raises:
            InputError: the prompt is too long, or the video has all the segments that `start` was told of, where the
                network generates it from its end.
        """
        check_text(prompt)
        negative = self._condition(self._plan.negative, state.picture) if self._plan.classifier_free.active else None
        condition = self._condition(prompt, state.picture)
        frames, generation = self._rollout.generate(state.generation, condition, negative)
        return frames, dataclasses.replace(state, generation=generation)

    def finish(self, state: State) -> np.ndarray:
        """The frames that are still to come if the video ends here, uint8 `[n, H, W, 3]`; none under most codecs."""
        return self._rollout.finish(state.generation)

    def update_memory(self, state: State, segment: np.ndarray) -> State:
        """Takes a segment as given: history, memory and the count of segments go on as if it had been generated.

        Frames of before that a codec still holds back are not returned: take them by `finish` first.

        Args:
            state: as of `start`, `next_segment` or this.
            segment: frames, uint8 `[segment_frames, H, W, 3]` of the run's size, or latents, float `[f, h, w, c]`. A
                codec whose encoder looks back sees the first frame of the video before them.

        Returns:
            the state after the segment.

        Raises:
            InputError: another shape or dtype, or no segment is to come, as for `next_segment`.
        """
        run, codec, history = self._run, self._run.codec, state.generation.video.history
        reference = np.asarray(history.reference)
        frames, latents = (self.segment_frames, run.height, run.width, 3), history.frames.shape[2:]
        latents = (run.model.framepack.segment_frames, *latents)
        if not isinstance(segment, np.ndarray):
            raise InputError(f"segment is a {type(segment).__name__}: give frames or latents as a NumPy array")
        pixels = segment.dtype == np.uint8
        if segment.shape != (frames if pixels else latents) or not (
            pixels or np.issubdtype(segment.dtype, np.floating)
        ):
            raise InputError(
                f"segment is {segment.dtype} {list(segment.shape)}: give frames, uint8 {list(frames)}, or latents, "
                f"float {list(latents)}"
            )
        if pixels:
            video = np.concatenate([codec.decode(reference), to_float(segment)[None]], axis=1)
            segment = codec.encode(video)[0, 1:]
        return dataclasses.replace(state, generation=self._rollout.give(state.generation, segment)[1])
