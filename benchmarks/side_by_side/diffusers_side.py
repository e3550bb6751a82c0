"""diffusers' side of a comparison (`side` says how it is asked); needs torch, diffusers and accelerate alone.

    PYTHON -m benchmarks.side_by_side.diffusers_side

Source: diffusers 0.42, `HunyuanVideoFramepackTransformer3DModel`, `UniPCMultistepScheduler` and
`AutoencoderKLHunyuanVideo`. The variant `eager` runs them as they are, `compile` through `torch.compile`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import side


class Job:
    """A function without arguments; implements `side.Ready`."""

    def __init__(self, function: Callable[[], Any], to_file: Callable[[Any], dict[str, Any]], dtype: Any):
        import torch

        self._function, self._to_file = function, to_file
        self._cuda = torch.cuda.is_available()
        n = 8192 if self._cuda else 2048
        self._square = torch.full((n, n), 0.5, dtype=dtype, device=device())

    @property
    def about(self) -> dict[str, Any]:
        """See `side.Ready`."""
        import diffusers
        import torch

        return {
            "device": torch.cuda.get_device_name() if self._cuda else "cpu",
            "threads": torch.get_num_threads(),
            "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        }

    def run(self) -> None:
        """See `side.Ready`."""
        self._function()
        self._wait()

    def write(self, path: str) -> None:
        """See `side.Ready`."""
        from safetensors.torch import save_file

        found = self._to_file(self._function())
        save_file({name: tensor.detach().float().cpu().contiguous() for name, tensor in found.items()}, path)

    def multiply(self) -> int:
        """See `side.Ready`."""
        self._square @ self._square
        self._wait()
        return 2 * self._square.shape[0] ** 3

    def device_bytes(self) -> int | None:
        """See `side.Ready`."""
        import torch

        return torch.cuda.max_memory_allocated() if self._cuda else None

    def _wait(self) -> None:
        if self._cuda:
            import torch

            torch.cuda.synchronize()


def device() -> str:
    """`cuda` where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class Network:
    """The transformer of a job, and its inputs as diffusers' pipeline would pass them."""

    def __init__(self, job: dict[str, Any]):
        import torch
        from diffusers import HunyuanVideoFramepackTransformer3DModel
        from safetensors.torch import load_file

        self.dtype = getattr(torch, job["dtype"])
        folder = Path(job["folder"])
        self.model = HunyuanVideoFramepackTransformer3DModel.from_pretrained(folder, torch_dtype=self.dtype)
        self.model.to(device()).eval()
        self.call = _variant(self.model, job)
        inputs = {name: tensor.to(device()) for name, tensor in load_file(folder / "inputs.safetensors").items()}
        self.noisy, self.target = (_channels_second(inputs[name]) for name in ("noisy", "target"))
        near, middle, far = job["history_frames"]
        frames = _channels_second(inputs["history"]).to(self.dtype)
        reference = _channels_second(inputs["reference"]).to(self.dtype)
        # FramePack-F1: the reference frame has place 0, the history follows it, and the segment comes last.
        places = torch.arange(1 + far + middle + near + self.noisy.shape[2], device=device())
        sizes = [1, far, middle, near, self.noisy.shape[2]]
        first, places_4x, places_2x, places_1x, places_noisy = places.split(sizes)
        frames_4x, frames_2x, frames_1x = frames.split([far, middle, near], 2)
        self.timestep = torch.tensor([job["timestep"]], device=device())
        self.fixed = {
            "guidance": torch.tensor([job["guidance"]], device=device()).to(self.dtype),
            "encoder_hidden_states": inputs["text"].to(self.dtype),
            "encoder_attention_mask": torch.ones(inputs["text"].shape[:2], dtype=torch.bool, device=device()),
            "pooled_projections": inputs["pooled"].to(self.dtype),
            "image_embeds": inputs["image"].to(self.dtype),
            "indices_latents": places_noisy,
            "latents_clean": torch.cat([reference, frames_1x], 2),
            "indices_latents_clean": torch.cat([first, places_1x]),
            "latents_history_2x": frames_2x,
            "indices_latents_history_2x": places_2x,
            "latents_history_4x": frames_4x,
            "indices_latents_history_4x": places_4x,
            "return_dict": False,
        }

    def predict(self, latents: Any, timestep: Any) -> Any:
        """noise − data, float32, for latents `[1, c, f, h, w]`."""
        output = self.call(hidden_states=latents.to(self.dtype), timestep=timestep.to(self.dtype), **self.fixed)
        return output[0].float()


def forward(job: dict[str, Any]) -> Job:
    """One network evaluation."""
    import torch

    network = Network(job)

    @torch.inference_mode()
    def run() -> Any:
        return network.predict(network.noisy, network.timestep)

    return Job(run, lambda output: {"prediction": output.movedim(1, -1)}, network.dtype)


def gradient(job: dict[str, Any]) -> Job:
    """Gradient of the mean squared error to every parameter; with remat `full`, forward passes of blocks twice.

    torch keeps what `none` keeps otherwise; it has no counterpart of `dots`.
    """
    network = Network(job)
    if job["remat"] == "full":
        network.model.enable_gradient_checkpointing()

    def run() -> Any:
        network.model.zero_grad(set_to_none=True)
        loss = ((network.predict(network.noisy, network.timestep) - network.target) ** 2).mean()
        loss.backward()
        return loss

    def to_file(loss: Any) -> dict[str, Any]:
        return {"loss": loss.reshape(1)} | {name: p.grad for name, p in network.model.named_parameters()}

    return Job(run, to_file, network.dtype)


def segment(job: dict[str, Any]) -> Job:
    """A segment by UniPC on the shifted grid.

    diffusers' scheduler works on variance-preserving latents, x / √(1 + σ²), and there λ = −ln σ. Its
    coefficients cancel in float32, to 4e-4 of the result, so σ is given in float64; the latents stay float32.
    """
    import torch
    from diffusers import UniPCMultistepScheduler

    network, steps, shift = Network(job), job["steps"], job["shift"]
    even = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    sigmas = shift * even / (1 + (shift - 1) * even)

    @torch.inference_mode()
    def run() -> Any:
        scheduler = UniPCMultistepScheduler(
            solver_order=min(3, steps - 1), solver_type="bh1", prediction_type="sample", lower_order_final=False
        )
        scheduler.set_timesteps(steps)
        scheduler.set_begin_index(0)
        scheduler.sigmas = sigmas
        x = network.noisy
        for i, timestep in enumerate(scheduler.timesteps):
            sigma, following = float(sigmas[i]), float(sigmas[i + 1])
            data = x - sigma * network.predict(x, torch.tensor([1000 * sigma], device=device()))
            if i < steps - 1:  # the step to σ = 0 is the data itself
                scaled = scheduler.step(data, timestep, x / (1 + sigma**2) ** 0.5).prev_sample
                x = scaled * (1 + following**2) ** 0.5
        return data

    return Job(run, lambda latents: {"latents": latents.movedim(1, -1)}, network.dtype)


def vae_decode(job: dict[str, Any]) -> Job:
    """Latents to video."""
    return _vae_job(job, "decode", "latents", lambda video: {"video": video.movedim(1, -1)})


def vae_encode(job: dict[str, Any]) -> Job:
    """Video to the mean and log-variance of its latents."""

    def to_file(posterior: Any) -> dict[str, Any]:
        return {"mean": posterior.mean.movedim(1, -1), "logvar": posterior.logvar.movedim(1, -1)}

    return _vae_job(job, "encode", "video", to_file)


def _vae_job(job: dict[str, Any], method: str, given: str, to_file: Callable[[Any], dict[str, Any]]) -> Job:
    """A method of the autoencoder on one of the inputs."""
    import torch

    vae, inputs = _vae(job)
    x, call = _channels_second(inputs[given]), _variant(getattr(vae, method), job)

    @torch.inference_mode()
    def run() -> Any:
        return call(x, return_dict=False)[0]

    return Job(run, to_file, vae.dtype)


def _vae(job: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The autoencoder in one pass, as diffusers runs so short a video, and its inputs."""
    import torch
    from diffusers import AutoencoderKLHunyuanVideo
    from safetensors.torch import load_file

    dtype = getattr(torch, job["dtype"])
    vae = AutoencoderKLHunyuanVideo.from_pretrained(job["folder"], torch_dtype=dtype).to(device()).eval()
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    inputs = load_file(Path(job["folder"]) / "inputs.safetensors")
    return vae, {name: tensor.to(device(), dtype) for name, tensor in inputs.items()}


def _variant(call: Any, job: dict[str, Any]) -> Any:
    import torch

    return torch.compile(call, dynamic=False) if job["variant"] == "compile" else call


def _channels_second(tensor: Any) -> Any:
    return tensor.movedim(-1, 1).contiguous()


CASES = {
    "forward": forward,
    "gradient": gradient,
    "segment": segment,
    "vae_decode": vae_decode,
    "vae_encode": vae_encode,
}


def ready(job: dict[str, Any]) -> Job:
    """The job of a case."""
    return CASES[job["case"]](job)


def load() -> Callable[[dict[str, Any]], Job]:
    """Imports the libraries.

    torch has its default number of threads, or that of `OMP_NUM_THREADS`, which a race sets with chosen cores.

    Raises:
        ModuleNotFoundError: one is missing.
    """
    try:
        import accelerate  # noqa: F401
        import diffusers  # noqa: F401
        import torch
    except ModuleNotFoundError as error:
        remedy = "give --rival a Python that has torch, diffusers and accelerate"
        raise ModuleNotFoundError(f"{error}: {remedy}") from error

    torch.backends.cudnn.allow_tf32 = False  # float32 is float32, as its products already are
    torch.backends.cudnn.benchmark = True  # shapes are fixed, and XLA measures its algorithms, too
    return ready


if __name__ == "__main__":
    side.serve(load)
