"""What a launcher told this process by environment variables: how many processes there are, which one it is, and
which GPUs of its host are its own.

| launcher | read | process 0 |
|---|---|---|
| by hand | `JAX_NUM_PROCESSES`, `JAX_PROCESS_ID`, perhaps `JAX_LOCAL_DEVICE_IDS` | `JAX_COORDINATOR_ADDRESS` |
| Slurm (`srun`) | `SLURM_STEP_NUM_TASKS`, `SLURM_STEP_TASKS_PER_NODE`, `…_PROCID`, `…_LOCALID` | found by JAX |
| Open MPI | `OMPI_COMM_WORLD_SIZE`, `…_RANK`, `…_LOCAL_RANK`, `…_LOCAL_SIZE` | JAX, or as by hand |
| TPU on GKE | `TPU_WORKER_HOSTNAMES`, `TPU_WORKER_ID`, `MEGASCALE_NUM_SLICES`, `…_SLICE_ID` | found by JAX |

A TPU VM outside GKE says nothing in its environment: JAX asks the metadata server.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from mpjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """One process of a group.

    Attributes:
        by: the launcher, in words.
        count: processes of the group.
        index: of this one, 0 ≤ index < count.
        coordinator: `host:port` of process 0; None: JAX finds it.
        method: JAX's name of the launcher; None: JAX is not to look for one, or looks by itself.
        local_devices: GPUs of this process, as CUDA numbers those it can see; None: all that it sees.
    """

    by: str
    count: int
    index: int
    coordinator: str | None = None
    method: str | None = None
    local_devices: tuple[int, ...] | None = None


def launch_of(environment: Mapping[str, str], gpus: int | None = None) -> Launch | None:
    """What the environment says; None: no launcher, or one that speaks through JAX alone.

    Under Slurm and Open MPI the GPUs that a process sees are divided evenly among the processes of its host, unless
    the launcher has given each its own. JAX by itself would take one GPU a process, however many there are.

    Args:
        environment: `os.environ`.
        gpus: that this process sees (default: from the environment, then from /dev).

    Raises:
        InputError: a variable is missing or no number, or the GPUs do not divide.
    """
    if "JAX_NUM_PROCESSES" in environment or "JAX_PROCESS_ID" in environment:
        return _by_hand(environment)
    if {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST"} <= environment.keys():
        return _slurm(environment, gpus)
    if "OMPI_COMM_WORLD_SIZE" in environment:
        return _open_mpi(environment, gpus)
    if "TPU_WORKER_HOSTNAMES" in environment:
        return _gke(environment)
    return None


def _by_hand(environment: Mapping[str, str]) -> Launch:
    devices = environment.get("JAX_LOCAL_DEVICE_IDS")
    try:
        local_devices = tuple(int(d) for d in devices.split(",")) if devices else None
    except ValueError:
        raise InputError(f"JAX_LOCAL_DEVICE_IDS is {devices!r}: give numbers with commas, as 0,1,2,3") from None
    return _checked(
        Launch(
            by="JAX_NUM_PROCESSES",
            count=_number(environment, "JAX_NUM_PROCESSES"),
            index=_number(environment, "JAX_PROCESS_ID"),
            coordinator=_text(environment, "JAX_COORDINATOR_ADDRESS"),
            local_devices=local_devices,
        )
    )


def _slurm(environment: Mapping[str, str], gpus: int | None) -> Launch:
    per_node = _tasks_per_node(_text(environment, "SLURM_STEP_TASKS_PER_NODE"))
    node = _number(environment, "SLURM_NODEID")
    if node >= len(per_node):
        raise InputError(f"SLURM_NODEID is {node}, but SLURM_STEP_TASKS_PER_NODE names {len(per_node)} nodes: use srun")
    on_node = environment.get("SLURM_GPUS_ON_NODE")
    seen = _visible_gpus(environment) if gpus is None else gpus
    # --gpus-per-task and --gpu-bind let every task see its own GPUs alone.
    bound = on_node is not None and on_node.isdigit() and 0 < seen < int(on_node)
    return _checked(
        Launch(
            by="Slurm",
            count=_number(environment, "SLURM_STEP_NUM_TASKS"),
            index=_number(environment, "SLURM_PROCID"),
            method="slurm",
            local_devices=_share(seen, per_node[node], _number(environment, "SLURM_LOCALID"), bound),
        )
    )


def _open_mpi(environment: Mapping[str, str], gpus: int | None) -> Launch:
    coordinator = environment.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is None and "OMPI_MCA_orte_hnp_uri" not in environment:
        raise InputError(
            "this Open MPI (5 or newer) does not say where process 0 is: give JAX_COORDINATOR_ADDRESS=HOST:PORT with "
            "mpirun -x"
        )
    seen = _visible_gpus(environment) if gpus is None else gpus
    local = _number(environment, "OMPI_COMM_WORLD_LOCAL_RANK")
    return _checked(
        Launch(
            by="Open MPI",
            count=_number(environment, "OMPI_COMM_WORLD_SIZE"),
            index=_number(environment, "OMPI_COMM_WORLD_RANK"),
            coordinator=coordinator,
            method=None if coordinator else "ompi",
            local_devices=_share(seen, _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE"), local, bound=False),
        )
    )


def _gke(environment: Mapping[str, str]) -> Launch | None:
    workers = len(environment["TPU_WORKER_HOSTNAMES"].split(","))
    slices = int(environment.get("MEGASCALE_NUM_SLICES") or 1)
    if workers * slices == 1:
        return None  # a TPU VM of its own may have the variable, too
    return _checked(
        Launch(
            by="GKE",
            count=workers * slices,
            index=int(environment.get("MEGASCALE_SLICE_ID") or 0) * workers + _number(environment, "TPU_WORKER_ID"),
            method="gketpu",
        )
    )


def _share(gpus: int, processes: int, local: int, bound: bool) -> tuple[int, ...] | None:
    """The GPUs of process `local` of a host; None: there are none."""
    if not gpus:
        return None
    if bound:
        return tuple(range(gpus))
    if gpus % processes:
        raise InputError(
            f"{processes} processes on this host see {gpus} GPUs, which does not divide: start one process a host, or "
            "one a GPU"
        )
    each = gpus // processes
    return tuple(range(local * each, (local + 1) * each))


def _visible_gpus(environment: Mapping[str, str]) -> int:
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() not in ("", "-1", "NoDevFiles")])
    return sum(1 for path in Path("/dev").glob("nvidia[0-9]*"))


def _tasks_per_node(text: str) -> list[int]:
    """Slurm's `4(x2),1` as 4, 4, 1."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise InputError(f"SLURM_STEP_TASKS_PER_NODE is {text!r}, not as 4(x2),1: start by srun")
        found += [int(match[1])] * int(match[2] or 1)
    return found


def _text(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise InputError(f"{name} is not set: the processes of a group need it to find one another")
    return environment[name]


def _number(environment: Mapping[str, str], name: str) -> int:
    text = _text(environment, name)
    if not text.isdigit():
        raise InputError(f"{name} is {text!r}: give a number")
    return int(text)


def _checked(launch: Launch) -> Launch:
    if not 0 <= launch.index < launch.count:
        raise InputError(f"{launch.by}: process {launch.index} of {launch.count} cannot be: count from 0")
    return launch
