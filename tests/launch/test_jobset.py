"""The GKE manifest: every field exists, and the numbers that a slice must agree on agree."""

import copy
import math
import signal
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from mpjax.__main__ import parser
from mpjax.errors import LostProcess
from tests.launch.jobset import validate

ROOT = Path(__file__).parents[2]
MANIFEST = yaml.safe_load((ROOT / "launch/gke_jobset.yaml").read_text())
REFUSED = (jsonschema.ValidationError, kubernetes_validate.ValidationError)


def job_of(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]


def pod_of(manifest):
    return job_of(manifest)["template"]["spec"]


def test_every_field_exists():
    validate(MANIFEST)


def rename(manifest, get, old, new):
    fields = get(manifest)
    fields[new] = fields.pop(old)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: rename(m, lambda m: m["spec"]["failurePolicy"], "maxRestarts", "maxRestart"),
        lambda m: m["spec"]["failurePolicy"]["rules"][0].update(action="Restart"),
        lambda m: m["spec"]["failurePolicy"]["rules"][0].update(onJobFailureReasons=["Preempted"]),
        lambda m: m["spec"]["replicatedJobs"][0].update(replica=2),
        lambda m: m["spec"]["replicatedJobs"][0].pop("template"),
        lambda m: m.update(apiVersion="jobset.x-k8s.io/v1"),
        lambda m: rename(m, job_of, "parallelism", "paralellism"),
        lambda m: job_of(m).update(completions="16"),
        lambda m: rename(m, lambda m: job_of(m)["podFailurePolicy"]["rules"][1], "onExitCodes", "onExitCode"),
        lambda m: job_of(m)["podFailurePolicy"]["rules"][1]["onExitCodes"].update(values=["75"]),
        lambda m: rename(m, pod_of, "nodeSelector", "nodeSelectors"),
        lambda m: pod_of(m)["containers"][0].update(arg=["train"]),
        lambda m: pod_of(m)["containers"][0]["ports"][0].update(containerPort="8471"),
    ],
)
def test_the_check_sees(spoil):
    manifest = copy.deepcopy(MANIFEST)
    spoil(manifest)
    with pytest.raises(REFUSED):
        validate(manifest)


def test_a_slice_has_as_many_hosts_as_its_topology():
    job, pod = job_of(MANIFEST), pod_of(MANIFEST)
    (container,) = pod["containers"]
    chips = math.prod(map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
    held = container["resources"]
    assert held["requests"] == held["limits"]
    assert job["completions"] * int(held["limits"]["google.com/tpu"]) == chips
    assert job["parallelism"] == job["completions"] and job["completionMode"] == "Indexed"


def test_one_lost_host_starts_the_slice_again():
    """No Pod is replaced alone, and what the run wrote lies outside the Pods."""
    job, pod = job_of(MANIFEST), pod_of(MANIFEST)
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    taken, left = job["podFailurePolicy"]["rules"]
    assert taken == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    (container,) = pod["containers"]
    codes = {"containerName": container["name"], "operator": "In", "values": [128 + signal.SIGTERM]}
    assert left == {"action": "FailJob", "onExitCodes": codes}
    (answer,) = MANIFEST["spec"]["failurePolicy"]["rules"]
    assert answer["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert answer["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    # A run that hangs at the same update each time ends with this.
    assert LostProcess.status not in left["onExitCodes"]["values"]
    assert 0 < MANIFEST["spec"]["failurePolicy"]["maxRestarts"] <= 20
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    run = parser().parse_known_args(container["args"])[0].run
    assert any(run.is_relative_to(mount) for mount in mounts)


def test_its_command_is_one_of_ours():
    args, overrides = parser().parse_known_args(pod_of(MANIFEST)["containers"][0]["args"])
    hosts = MANIFEST["spec"]["replicatedJobs"][0]["replicas"] * job_of(MANIFEST)["completions"]
    assert overrides == [f"--config.processes.count={hosts}"]
    assert args.verb == "train" and args.platform == "tpu" and (ROOT / args.config).is_file()
