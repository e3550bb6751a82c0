"""JSON schema of a JobSet, jobset.x-k8s.io/v1alpha2, by its API reference; unknown fields are errors.

What a Job is, inside it, is Kubernetes' own schema.
"""

import jsonschema
import kubernetes_validate

_STRINGS = {"type": "array", "items": {"type": "string"}}
_NATURAL = {"type": "integer", "minimum": 0}
_LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
_NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}


def _fields(required=(), **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
        "minProperties": 1,
    }


_METADATA = _fields(name=_NAME, generateName=_NAME, namespace=_NAME, labels=_LABELS, annotations=_LABELS)
_JOB_RESTARTS = ["RestartJob", "RestartJobAndIgnoreMaxRestarts"]
_RULE = _fields(
    required=["name", "action"],
    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    action={"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts", *_JOB_RESTARTS]},
    # The reasons that Kubernetes gives when a Job fails.
    onJobFailureReasons={
        "type": "array",
        "uniqueItems": True,
        "items": {
            "enum": [
                "BackoffLimitExceeded",
                "DeadlineExceeded",
                "FailedIndexes",
                "MaxFailedIndexesExceeded",
                "PodFailurePolicy",
            ]
        },
    },
    onJobFailureMessagePatterns=_STRINGS,
    targetReplicatedJobs=_STRINGS,
)
_REPLICATED_JOB = _fields(
    required=["name", "template"],
    name=_NAME,
    groupName={"type": "string"},
    replicas=_NATURAL,
    template=_fields(required=["spec"], metadata=_METADATA, spec={"type": "object"}),
    dependsOn={
        "type": "array",
        "items": _fields(required=["name", "status"], name=_NAME, status={"enum": ["Ready", "Complete"]}),
    },
)
_TARGETS = {"operator": {"enum": ["All", "Any"]}, "targetReplicatedJobs": _STRINGS}
SCHEMA = _fields(
    required=["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=_METADATA,
    spec=_fields(
        required=["replicatedJobs"],
        replicatedJobs={"type": "array", "minItems": 1, "items": _REPLICATED_JOB},
        network=_fields(
            enableDNSHostnames={"type": "boolean"},
            subdomain=_NAME,
            publishNotReadyAddresses={"type": "boolean"},
        ),
        successPolicy=_fields(required=["operator"], **_TARGETS),
        failurePolicy=_fields(
            maxRestarts=_NATURAL,
            restartStrategy={"enum": ["Recreate", "BlockingRecreate", "InPlaceRestart"]},
            rules={"type": "array", "items": _RULE},
        ),
        startupPolicy=_fields(required=["startupPolicyOrder"], startupPolicyOrder={"enum": ["AnyOrder", "InOrder"]}),
        suspend={"type": "boolean"},
        coordinator=_fields(required=["replicatedJob"], replicatedJob=_NAME, jobIndex=_NATURAL, podIndex=_NATURAL),
        managedBy={"type": "string", "maxLength": 63},
        ttlSecondsAfterFinished=_NATURAL,
    ),
)


def validate(manifest):
    """Raises `jsonschema.ValidationError` or `kubernetes_validate.ValidationError` for what a cluster would refuse."""
    jsonschema.validate(manifest, SCHEMA)
    for job in manifest["spec"]["replicatedJobs"]:
        metadata = {"name": f"{manifest['metadata']['name']}-{job['name']}-0"}
        whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, **job["template"]}
        kubernetes_validate.validate(whole, kubernetes_validate.latest_version(), strict=True)
