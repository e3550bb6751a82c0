"""The launch scripts really run here, on CPUs and with stand-ins for the clusters' own programs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch import stand_ins
from tests.training import runs

ROOT = Path(__file__).parents[2]
# Stands in for an environment with everything installed: notes its arguments, and trains until it is told to stop.
PYTHON = """#!/bin/bash
printf '%s\\n' "$@" >"$PWD/arguments$SLURM_PROCID"
trap 'echo saved; exit 143' TERM
echo training
for ((i = 0; i < 600; i++)); do sleep 0.1; done
"""
KILLED = "kill -KILL $$"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Compiled programs: only the first run compiles."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place(tmp_path, cache):
    """(folder, environment): stand-ins in front of PATH, this Python as the installed one."""
    commands = tmp_path / "bin"
    stand_ins.install(commands, *stand_ins.PROGRAMS)
    environment = {
        **runs.environment(cache),
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "MPJAX_PYTHON": sys.executable,
    }
    return tmp_path, environment


def launch(script, *arguments, environment, cwd=ROOT):
    command = ["bash", str(ROOT / "launch" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=300, check=False)


def wait_for(condition, process=None, seconds=120):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit and (process is None or process.poll() is None)
        time.sleep(0.05)


def train_flags(folder, steps=2, argument="one"):
    config = runs.write_config(folder)
    return [f"--config={config}:{argument}", f"--run={folder / 'run'}", f"--config.training.stages.0.steps={steps}"]


# -- One GPU host ----------------------------------------------------------------------------------------------------


def test_gpu_host_trains(place):
    folder, environment = place
    done = launch("gpu_host.sh", *train_flags(folder), environment={**environment, "PLATFORM": "cpu"})
    assert done.returncode == 0, done.stderr
    assert runs.steps(folder / "run") == [2] and "finished at update 2 of 2" in done.stdout


def test_gpu_host_without_a_gpu_says_so(place):
    folder, environment = place
    done = launch("gpu_host.sh", *train_flags(folder), environment=environment)
    assert done.returncode == 1 and "nvidia-smi finds no GPU" in done.stderr and not (folder / "run").exists()
    # A driver, and no GPU that JAX finds.
    done = launch("gpu_host.sh", *train_flags(folder), environment={**environment, "DRIVER": "580.65.06"})
    assert done.returncode == 2 and "--platform=gpu, but JAX finds only cpu devices" in done.stderr
    assert not (folder / "run").exists()


@pytest.mark.parametrize(("driver", "extra"), [("580.65.06", "cuda13"), ("575.57.08", "cuda12"), ("600.1", "cuda13")])
def test_the_driver_decides_on_the_cuda(place, driver, extra):
    _, environment = place
    command = ["bash", "-c", f"source {ROOT}/launch/environment.sh; cuda_extra"]
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "DRIVER": driver}, check=True)
    assert done.stdout == f"{extra}\n"


# -- Slurm -----------------------------------------------------------------------------------------------------------


def slurm(environment, python, tasks=1):
    """What Slurm sets; the job's files lie in a folder of the test, which shows the repository."""
    submitted = Path(environment["CALLS"]).parent
    for name in ("launch", "mpjax"):
        (submitted / name).symlink_to(ROOT / name)
    return {
        **environment,
        "PLATFORM": "cpu",
        "MPJAX_PYTHON": str(python),
        "SLURM_SUBMIT_DIR": str(submitted),
        "SLURM_JOB_ID": "77",
        "SLURM_NTASKS": str(tasks),
    }


def start_slurm(folder, environment):
    """The job, once both tasks have set their traps."""
    process = subprocess.Popen(
        ["bash", str(ROOT / "launch/slurm.sbatch"), "--run=a run"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    assert [process.stdout.readline() for _ in range(2)] == ["training\n", "training\n"]
    return process


def test_slurm_trains(place):
    folder, environment = place
    done = launch("slurm.sbatch", *train_flags(folder), environment=slurm(environment, sys.executable), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert runs.steps(folder / "run") == [2]
    assert stand_ins.calls(folder / "calls", "scontrol") == []


@pytest.mark.parametrize(
    ("number", "requeued"),
    [(signal.SIGUSR1, [["requeue", "77"]]), (signal.SIGTERM, [])],  # the time limit nears; scancel
)
def test_slurm_saves_before_the_limit_and_goes_on_later(place, number, requeued):
    folder, environment = place
    python = folder / "python"
    python.write_text(PYTHON.replace("$PWD", str(folder)))
    python.chmod(0o755)
    process = start_slurm(folder, slurm(environment, python, tasks=2))
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and out.count("saved\n") == 2
    assert stand_ins.calls(folder / "calls", "scontrol") == requeued
    words = ["-m", "mpjax", "train", "--platform=cpu", "--config.processes.count=2", "--run=a run"]
    for task in range(2):
        assert (folder / f"arguments{task}").read_text().splitlines() == words


@pytest.mark.parametrize(
    ("first", "second", "restarts", "status", "requeued"),
    [
        ("exit 75", "exit 75", 0, 75, True),
        ("exit 75", KILLED, 19, 137, True),
        ("exit 75", "exit 75", 20, 75, False),
        ("exit 75", "exit 143", 0, 143, True),
        # It hangs, and srun kills it.
        ("exit 75", "sleep 60", 0, 137, True),
        ("exit 2", "exit 2", 0, 2, False),
        # What fails alone, and what the others end with because of it.
        ("exit 1", "sleep 60", 0, 1, False),
        ("exit 2", f"sleep 0.3; {KILLED}", 0, 2, False),
        ("exit 1", "sleep 0.3; exit 75", 0, 1, False),
        ("sleep 0.3; exit 2", "exit 75", 0, 2, False),  # process 0 waits for the others to know
        ("exit 1", "sleep 0.3; exit 143", 0, 1, False),
        # The other way round: one is killed, and the others fail of it.
        ("sleep 0.3; exit 1", KILLED, 0, 137, True),
        ("exit 143", "exit 143", 0, 143, False),  # `scancel` of the step
    ],
)
def test_slurm_goes_on_where_a_host_was_lost_and_not_where_the_program_failed(
    place, first, second, restarts, status, requeued
):
    folder, environment = place
    python = folder / "python"
    python.write_text(f"#!/bin/bash\nif ((SLURM_PROCID == 0)); then {first}; else {second}; fi\n")
    python.chmod(0o755)
    environment = {**slurm(environment, python, tasks=2), "SLURM_RESTART_COUNT": str(restarts)}
    done = launch("slurm.sbatch", "--run=a run", environment=environment, cwd=folder)
    assert stand_ins.calls(folder / "calls", "scontrol") == ([["requeue", "77"]] if requeued else [])
    assert ("a host was lost; back into the queue" in done.stdout) == requeued
    assert ("started again 20 times already" in done.stdout) == (restarts == 20)
    assert (f"ended with status {status}: look for the cause" in done.stdout) == (status in (1, 2))
    assert done.returncode == status
    assert not list(folder.glob("mpjax-77*"))


@pytest.mark.parametrize(("number", "answer"), [(signal.SIGUSR1, 1), (signal.SIGTERM, 75)])
def test_slurm_does_not_requeue_what_fails_at_the_time_limit_nor_what_was_cancelled(place, number, answer):
    """It would fail at every limit, or go on although it was told to end."""
    folder, environment = place
    python = folder / "python"
    python.write_text(PYTHON.replace("$PWD", str(folder)).replace("exit 143", f"exit {answer}"))
    python.chmod(0o755)
    process = start_slurm(folder, slurm(environment, python, tasks=2))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == answer and stand_ins.calls(folder / "calls", "scontrol") == []


def test_slurm_wants_one_process_a_node():
    lines = (ROOT / "launch/slurm.sbatch").read_text().splitlines()
    options = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    # Slurm reads options only in front of the first command.
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(not line.startswith("#SBATCH") for line in lines[first:])
    assert {"--ntasks-per-node=1", "--signal=B:USR1@300", "--requeue", "--open-mode=append"} <= set(options)


# -- A TPU pod -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pod(place):
    """(folder, environment, workers): two slices of two workers."""
    folder, environment = place
    workers = [folder / f"pod/node_{n}/worker_{m}" for n in range(2) for m in range(2)]
    for home in workers:
        home.mkdir(parents=True)
    python = folder / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {
        **environment,
        "MPJAX_PYTHON": str(python),
        "NAME": "long-video",
        "ZONE": "a-zone",
        "WORKERS": str(folder / "pod"),
        "STATES": "WAITING_FOR_RESOURCES PROVISIONING ACTIVE",
        "POLL_SECONDS": "0",
    }
    return folder, environment, workers


def test_a_pod_from_beginning_to_end(pod):
    folder, environment, workers = pod

    def step(*arguments, status=0, **more):
        done = launch("tpu_pod.sh", *arguments, environment={**environment, **more})
        assert done.returncode == status, done.stderr
        return done

    step("create", TYPE="v5p-16", RUNTIME="a-runtime", SLICES="2", SPOT="yes", PROJECT="a-project", VALID_UNTIL="6h")
    (call,) = stand_ins.calls(folder / "calls", "gcloud")
    assert call[:5] == ["compute", "tpus", "queued-resources", "create", "long-video"]
    assert set(call[5:]) == {
        "--accelerator-type=v5p-16",
        "--runtime-version=a-runtime",
        "--node-count=2",
        "--node-prefix=long-video",
        "--spot",
        "--valid-until-duration=6h",
        "--zone=a-zone",
        "--project=a-project",
    }
    assert step("wait").stdout == "long-video: WAITING_FOR_RESOURCES\nlong-video: PROVISIONING\nlong-video: ACTIVE\n"

    step("install")
    for home in workers:
        assert (home / "mpjax/mpjax/__main__.py").is_file() and (home / "mpjax/configs").is_dir()
        assert not (home / "mpjax/.git").exists() and not (home / "mpjax/.venv").exists()

    step("train", "--config=a.py", "--config.data.path=with space", "--config.seed='$HOME'")
    words = ["-m", "mpjax", "train", "--platform=tpu", "--config=a.py", "--config.data.path=with space"]
    for home in workers:
        wait_for(lambda home=home: (home / "mpjax/train.log").read_text() == "training\n")
        assert (home / "mpjax/arguments").read_text().splitlines() == [*words, "--config.seed='$HOME'"]
    assert "a run is going on already" in step("train", "--config=a.py", status=1).stderr
    assert step("status").stdout.count("runs: training") == 4
    step("stop")
    for home in workers:
        assert (home / "mpjax/train.log").read_text() == "training\nsaved\n"
    assert step("status").stdout.count("does not run: saved") == 4
    step("delete")
    assert stand_ins.calls(folder / "calls", "gcloud")[-1][3:] == [
        "delete",
        "long-video",
        "--force",
        "--async",
        "--zone=a-zone",
    ]


def test_one_slice_is_a_node(pod):
    folder, environment, _ = pod
    assert launch("tpu_pod.sh", "create", environment={**environment, "TYPE": "v6e-8", "RUNTIME": "r"}).returncode == 0
    (call,) = stand_ins.calls(folder / "calls", "gcloud")
    assert "--node-id=long-video" in call and not any(word.startswith(("--node-count", "--spot")) for word in call)


def test_a_pod_that_does_not_come_up(pod):
    _, environment, _ = pod
    done = launch("tpu_pod.sh", "wait", environment={**environment, "STATES": "WAITING_FOR_RESOURCES FAILED"})
    assert done.returncode == 1 and "is FAILED and will not come up" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "changes", "says"),
    [
        (["create"], {}, "TYPE is not set"),
        (["train", "--run=x"], {"ZONE": ""}, "ZONE is not set"),
        (["launch"], {}, "./launch/tpu_pod.sh create"),
        (["train"], {}, "./launch/tpu_pod.sh create"),
        ([], {}, "./launch/tpu_pod.sh create"),
    ],
)
def test_a_wrong_call_asks_for_nothing(pod, arguments, changes, says):
    folder, environment, _ = pod
    done = launch("tpu_pod.sh", *arguments, environment={**environment, **changes})
    assert done.returncode == 2 and says in done.stderr
    assert stand_ins.calls(folder / "calls", "gcloud") == []
