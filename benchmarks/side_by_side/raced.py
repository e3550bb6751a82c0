"""Cases that a rival runs, too: what both sides are told, its operations, and how far the results may differ."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.race import Contestant, own_python, race
from benchmarks.side_by_side.request import ROUNDS, VARIANTS, Request
from benchmarks.side_by_side.summary import summarise
from benchmarks.side_by_side.workload import HALF_VAE, MEDIUM, Workload, of_config, write_network, write_vae
from mpjax import config
from mpjax.errors import InputError
from mpjax.models.flops import velocity_flops
from mpjax.models.vae_flops import decode_flops, encode_flops

Say = Callable[[str], None]

# Largest relative difference of an array, ‖a − b‖ / ‖b‖. In bfloat16 both sides round some ten times a block.
TOLERANCES = {"float32": 2e-4, "bfloat16": 5e-2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A case made concrete.

    Attributes:
        job: what both sides are told, besides the case's name and variant.
        flops: operations of one run.
        tolerance: relative difference that is allowed.
        sizes: JSON for the record.
    """

    job: dict[str, Any]
    flops: int
    tolerance: float
    sizes: dict[str, Any]


def workload(request: Request) -> Workload:
    """The network of the request.

    Raises:
        InputError: see `experiment.load`.
    """
    return MEDIUM if request.config is None else of_config(request.config, list(request.overrides))


def network_task(network: Workload, folder: Path, *, evaluations: int, **job: Any) -> Task:
    """A run of a network takes the operations of so many evaluations."""
    arch = network.architecture
    forward = sum(velocity_flops(arch, network.tokens).values())
    return Task(
        job={**write_network(network, folder), **job},
        flops=evaluations * forward,
        tolerance=TOLERANCES[arch.dtype],
        sizes={
            "network": network.name,
            "width": arch.width,
            "blocks": [arch.dual_blocks, arch.single_blocks],
            "latents": [arch.framepack.segment_frames, *network.latent_size, arch.channels],
            "tokens": config.to_dict(network.tokens),
            "dtype": arch.dtype,
        },
    )


def forward(request: Request, folder: Path) -> Task:
    """One network evaluation."""
    return network_task(workload(request), folder, evaluations=1)


def gradient_workload(request: Request) -> Workload:
    """The network of the request, whose backward pass the rival can do, too.

    Raises:
        InputError: see `workload`, or it offloads and there is a rival.
    """
    network = workload(request)
    if request.rival and network.architecture.remat == "offload":
        raise InputError(
            f"case gradient: {request.config} has remat 'offload', which the rival has not: give "
            "--config.model.remat=full, dots or none, or no --rival"
        )
    return network


def gradient(request: Request, folder: Path) -> Task:
    """Forward pass, and backward pass to all parameters, which is twice its operations.

    What rematerialisation repeats is not counted; with `full` the rival repeats each block's forward pass, too.
    """
    task = network_task(gradient_workload(request), folder, evaluations=3)
    return dataclasses.replace(task, sizes={**task.sizes, "remat": task.job["remat"]})


STEPS, SHIFT = 25, 3.0


def segment(request: Request, folder: Path) -> Task:
    """A segment by UniPC: 25 evaluations."""
    return network_task(workload(request), folder, evaluations=STEPS, steps=STEPS, shift=SHIFT)


def vae_task(folder: Path, flops: int) -> Task:
    """The autoencoder of `workload.HALF_VAE`."""
    vae = HALF_VAE
    sizes = {"widths": list(vae.architecture.widths), "latents": [*vae.latents, 16], "dtype": "float32"}
    return Task(job=write_vae(vae, folder), flops=flops, tolerance=TOLERANCES["float32"], sizes=sizes)


def vae_decode(request: Request, folder: Path) -> Task:
    """Latents to nine frames."""
    return vae_task(folder, decode_flops(HALF_VAE.architecture, HALF_VAE.latents))


def vae_encode(request: Request, folder: Path) -> Task:
    """Nine frames to the moments of their latents."""
    return vae_task(folder, encode_flops(HALF_VAE.architecture, HALF_VAE.latents))


RACED: dict[str, Callable[[Request, Path], Task]] = {
    "forward": forward,
    "gradient": gradient,
    "segment": segment,
    "vae_decode": vae_decode,
    "vae_encode": vae_encode,
}


def run_race(case: str, request: Request, say: Say) -> dict[str, Any]:
    """Runs a case of `RACED` on all sides.

    Returns:
        {sizes, flops, cores, matmul_flops_per_second, sides, rounds}, see `summary.summarise` and `race.race`.
    """
    ours = Contestant(name="mpjax", command=own_python("benchmarks.side_by_side.ours"))
    contestants = [ours]
    if request.rival_python:
        command = (request.rival_python, "-m", "benchmarks.side_by_side.diffusers_side")
        variants = request.variant or VARIANTS
        contestants += [Contestant(name=f"diffusers {v}", command=command, variant=v) for v in variants]
    with tempfile.TemporaryDirectory(dir=request.scratch) as folder:
        task = RACED[case](request, Path(folder))
        found = race(
            contestants,
            {"case": case, **task.job},
            rounds=request.rounds or ROUNDS,
            cores=request.cores,
            tolerance=task.tolerance,
            folder=Path(folder),
            say=say,
        )
    return {
        "sizes": task.sizes,
        "flops": task.flops,
        "cores": request.cores or None,
        **summarise(found, task.flops),
        "rounds": found,
    }
