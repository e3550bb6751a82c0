"""The launch scripts by shellcheck, the Dockerfiles by hadolint."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
DOCKERFILES = sorted(LAUNCH.glob("Dockerfile.*"))


def lint(program, *arguments):
    path = shutil.which(program, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert path, f"{program} is missing: pip install -r requirements-dev.txt"
    return subprocess.run([path, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)


def test_every_launcher_is_there():
    names = {path.name for path in LAUNCH.iterdir()}
    assert {"gpu_host.sh", "slurm.sbatch", "tpu_pod.sh", "tpu_worker.sh", "gke_jobset.yaml"} <= names
    assert [path.name for path in DOCKERFILES] == ["Dockerfile.cuda", "Dockerfile.tpu"]


def test_scripts():
    done = lint("shellcheck", "-x", *map(str, SCRIPTS))
    assert done.returncode == 0, done.stdout


def test_dockerfiles():
    done = lint("hadolint", *map(str, DOCKERFILES))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("program", "name", "wrong", "says"),
    [
        ("shellcheck", "a.sh", "#!/usr/bin/env bash\ncd $1\n", "SC2086"),
        ("hadolint", "Dockerfile", "FROM a\nRUN apt-get install git\n", "DL3008"),
    ],
)
def test_the_lint_sees(tmp_path, program, name, wrong, says):
    (tmp_path / name).write_text(wrong)
    done = lint(program, str(tmp_path / name))
    assert done.returncode != 0 and says in done.stdout


def test_an_image_is_built_from_what_the_user_names():
    """Nothing here knows a registry: the base is an argument without a default."""
    for path in DOCKERFILES:
        text = path.read_text()
        assert re.findall(r"^FROM (.*)$", text, re.MULTILINE) == ["${BASE}"]
        assert re.findall(r"^ARG BASE(.*)$", text, re.MULTILINE) == [""]


def test_a_build_does_not_send_runs_and_environments():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", "runs"} <= set(ignored)
