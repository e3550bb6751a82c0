"""Profile, checked numerics and kept programs of a run, in the whole loop with a network of six numbers."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.profiler import ProfileData

from mpjax.__main__ import parser
from mpjax.errors import InputError
from mpjax.training.instruments import Instruments
from tests.training import runs
from tests.training.linear_runs import SKIP, arrays, assert_same, run


def traced(folder):
    """Numbers of the updates in a run's only trace."""
    (path,) = (folder / "profile").rglob("*.xplane.pb")
    events = [
        event for plane in ProfileData.from_file(str(path)).planes for line in plane.lines for event in line.events
    ]
    return sorted(dict(event.stats)["step_num"] for event in events if event.name == "train")


def test_a_profile_of_some_updates(tmp_path, poison):
    """Those that were asked for, and nothing changes; a trace that the run ends in is written, too."""
    plain = run(tmp_path, "plain", SKIP)
    said = []
    folder = run(tmp_path, "run", SKIP, say=said.append, instruments=Instruments(profile_steps=(3, 4)))
    assert traced(folder) == [3, 4]
    (line,) = [line for line in said if line.startswith("profile: ")]
    assert str(folder / "profile") in line
    assert_same(arrays(folder), arrays(plain))
    last = run(tmp_path, "last", SKIP, instruments=Instruments(profile_steps=(10, 99)))
    assert traced(last) == [10]
    never = run(tmp_path, "never", SKIP, instruments=Instruments(profile_steps=(50, 99)))
    assert not (never / "profile").exists()


@pytest.mark.parametrize("policy", [{"kind": "stop"}, SKIP])
def test_checked_numerics_name_the_cause_at_once(tmp_path, poison, policy):
    """At the update itself, with the next log line far off; then the policy has its way."""
    poison.add(5)
    said = []
    look = {"say": said.append, "instruments": Instruments(check_numerics=True)}
    flags = ["--config.training.log_every=100", "--config.training.checkpoint_every=6"]
    cause = "batch/segments holds"
    if policy["kind"] == "stop":
        with pytest.raises(InputError, match=f"loss nan with gradient norm nan at update 5, where {cause}"):
            run(tmp_path, "run", policy, *flags, **look)
    else:
        folder = run(tmp_path, "run", policy, *flags, **look)
        assert_same(arrays(folder), arrays(run(tmp_path, "unwatched", policy, *flags)))
    assert sum(f"update 5 is not finite, where {cause}" in line for line in said) == 1


def test_programs_are_kept(tmp_path, poison, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = jax.config.jax_compilation_cache_dir
    try:
        folder = tmp_path / "run" / "compiled"  # it may lie in the run folder, which is new
        run(tmp_path, "run", SKIP, instruments=Instruments(compilation_cache=folder))
        assert jax.config.jax_compilation_cache_dir == str(folder)
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
        run(tmp_path, "other", SKIP, instruments=Instruments(compilation_cache=tmp_path / "b"))
        assert jax.config.jax_compilation_cache_dir == str(folder)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_second_start_compiles_nothing(tmp_path):
    """Two processes, one after the other; every program of the second one comes from the folder."""
    environment = runs.environment(tmp_path)
    del environment["JAX_COMPILATION_CACHE_DIR"]  # it would win over the flag
    script = Path(__file__).with_name("kept_programs.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    (found, compiled), (found_again, compiled_again) = map(json.loads, done.stdout.splitlines())
    assert found_again == found + compiled and compiled_again == 0 and compiled > 2
    assert any(path.name.startswith("jit_step-") for path in (tmp_path / "compiled").iterdir())


def test_flags(capsys):
    args = parser().parse_args(["train", "--config=a.py", "--run=b", "--profile_steps=10:12", "--check_numerics"])
    assert args.profile_steps == (10, 12) and args.check_numerics and args.compilation_cache is None
    for wrong in ("10", "0:3", "5:4", "a:b"):
        with pytest.raises(SystemExit):
            parser().parse_args(["train", "--config=a.py", "--run=b", f"--profile_steps={wrong}"])
        assert f"'{wrong}' is no range of updates" in capsys.readouterr().err
