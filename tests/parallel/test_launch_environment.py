"""What launchers say, as their environments look on real clusters."""

import pytest

from mpjax.errors import InputError
from mpjax.parallel.launch_environment import Launch, launch_of

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[01-03]",
    "SLURM_STEP_NUM_TASKS": "9",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2),1",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2",
}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
}
HAND = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
GKE = {"TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_WORKER_ID": "2"}


def test_a_lone_process_has_no_launcher():
    assert launch_of({}) is None
    assert launch_of({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None  # inside sbatch, no srun
    assert launch_of({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}) is None


def test_by_hand():
    assert launch_of(HAND) == Launch(by="JAX_NUM_PROCESSES", count=2, index=1, coordinator="a:1")
    assert launch_of({**HAND, "JAX_LOCAL_DEVICE_IDS": "0,3"}).local_devices == (0, 3)
    assert launch_of({**SLURM, **HAND}).by == "JAX_NUM_PROCESSES"  # what is said by hand goes first


@pytest.mark.parametrize(
    ("tasks", "local", "extra", "gpus", "want"),
    [
        ("4(x2),1", "2", {}, 8, (4, 5)),  # 4 processes share 8 GPUs
        ("4(x2),1", "2", {}, 4, (2,)),  # one each
        ("1(x9)", "0", {}, 8, tuple(range(8))),  # one process a node takes all, where JAX would take the first
        ("4(x2),1", "2", {"SLURM_GPUS_ON_NODE": "8"}, 2, (0, 1)),  # --gpus-per-task: it sees only its own
        ("4(x2),1", "2", {"SLURM_GPUS_ON_NODE": "8", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, None, (4, 5)),
        ("4(x2),1", "2", {}, 0, None),
    ],
)
def test_slurm_divides_the_gpus_of_a_node(tasks, local, extra, gpus, want):
    environment = {**SLURM, "SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_LOCALID": local, **extra}
    launch = launch_of(environment, gpus)
    assert launch == Launch(by="Slurm", count=9, index=6, method="slurm", local_devices=want)


def test_open_mpi():
    assert launch_of(MPI, 8) == Launch(by="Open MPI", count=4, index=3, method="ompi", local_devices=(4, 5, 6, 7))
    five = {name: value for name, value in MPI.items() if "orte" not in name}
    assert launch_of({**five, "JAX_COORDINATOR_ADDRESS": "a:1"}, 0).coordinator == "a:1"
    with pytest.raises(InputError, match="give JAX_COORDINATOR_ADDRESS=HOST:PORT with mpirun -x"):
        launch_of(five, 0)


def test_gke_counts_the_workers_of_all_slices():
    assert launch_of(GKE) == Launch(by="GKE", count=4, index=2, method="gketpu")
    two = launch_of({**GKE, "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"})
    assert (two.count, two.index) == (8, 6)


@pytest.mark.parametrize(
    ("environment", "gpus", "said"),
    [
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "3(x3)"}, 8, "3 processes on this host see 8 GPUs"),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "four"}, 0, r"SLURM_STEP_TASKS_PER_NODE is 'four'"),
        ({**SLURM, "SLURM_NODEID": "5"}, 0, "SLURM_NODEID is 5, but .* names 3 nodes"),
        ({**SLURM, "SLURM_PROCID": "9"}, 0, "process 9 of 9 cannot be"),
        ({**HAND, "JAX_PROCESS_ID": "x"}, 0, "JAX_PROCESS_ID is 'x'"),
        ({**HAND, "JAX_LOCAL_DEVICE_IDS": "0;1"}, 0, "JAX_LOCAL_DEVICE_IDS is '0;1'"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, 0, "JAX_COORDINATOR_ADDRESS is not set"),
        ({"JAX_NUM_PROCESSES": "2"}, 0, "JAX_PROCESS_ID is not set"),
    ],
)
def test_what_cannot_be_is_named(environment, gpus, said):
    with pytest.raises(InputError, match=said):
        launch_of(environment, gpus)
