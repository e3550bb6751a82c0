#!/usr/bin/env bash
# A training run on a Cloud TPU slice, or several, that a queued resource brings up. From this machine, with gcloud:
#
#   ./launch/tpu_pod.sh create              ask for the slices
#   ./launch/tpu_pod.sh wait                until they are there
#   ./launch/tpu_pod.sh install             this folder and its environment, on every worker
#   ./launch/tpu_pod.sh train FLAGS         `python -m mpjax train FLAGS` on every worker; goes on when this machine leaves
#   ./launch/tpu_pod.sh status              of the resource, and the last line that each worker wrote
#   ./launch/tpu_pod.sh logs                what the first worker writes
#   ./launch/tpu_pod.sh stop                save and stop, on every worker
#   ./launch/tpu_pod.sh delete              give the slices back
#
# By environment variables: NAME and ZONE of the resource (always); TYPE, such as v5p-128, and RUNTIME, a TPU software
# version with Python 3.11 or newer (create); SLICES (1); SPOT=yes; PROJECT (gcloud's own); VALID_UNTIL, how long to
# stay in the queue, such as 6h.
set -euo pipefail

usage() {
    sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p' >&2
    exit 2
}

need() {
    local variable
    for variable in "$@"; do
        if [[ -z "${!variable:-}" ]]; then
            echo "tpu_pod.sh: $variable is not set: give it as an environment variable" >&2
            exit 2
        fi
    done
}

resource() {
    local verb="$1"
    shift
    gcloud compute tpus queued-resources "$verb" "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"}
}

state() {
    resource describe "$NAME" --format='value(state.state)'
}

# A command on every worker of every slice, its words quoted for the shell there.
on_workers() {
    resource ssh "$NAME" --node=all --worker=all --command="bash mpjax/launch/tpu_worker.sh $(printf '%q ' "$@")"
}

verb="${1:-}"
shift || usage
need NAME ZONE
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

case "$verb" in
    create)
        need TYPE RUNTIME
        options=(--accelerator-type="$TYPE" --runtime-version="$RUNTIME")
        if ((${SLICES:-1} > 1)); then
            options+=(--node-count="$SLICES" --node-prefix="$NAME")
        else
            options+=(--node-id="$NAME")
        fi
        if [[ "${SPOT:-}" == yes ]]; then options+=(--spot); fi
        if [[ -n "${VALID_UNTIL:-}" ]]; then options+=(--valid-until-duration="$VALID_UNTIL"); fi
        resource create "$NAME" "${options[@]}"
        ;;
    wait)
        before=""
        while true; do
            now="$(state)"
            if [[ "$now" != "$before" ]]; then echo "$NAME: $now"; fi
            case "$now" in
                ACTIVE) break ;;
                FAILED | SUSPENDED | SUSPENDING | DELETING)
                    echo "tpu_pod.sh: $NAME is $now and will not come up: delete it and create it again" >&2
                    exit 1
                    ;;
            esac
            before="$now"
            sleep "${POLL_SECONDS:-30}"
        done
        ;;
    install)
        archive="$(mktemp --suffix=.tgz)"
        trap 'rm -f "$archive"' EXIT
        # Not what git has, but what is here: a config of one's own (my_*.py) comes along.
        tar -czf "$archive" -C "$root" --exclude=./.git --exclude=./.venv --exclude=./runs --exclude='./.*_cache' \
            --exclude=__pycache__ .
        resource scp "$archive" "$NAME:mpjax.tgz" --node=all --worker=all
        resource ssh "$NAME" --node=all --worker=all \
            --command="mkdir -p mpjax && tar -xzf mpjax.tgz -C mpjax && bash mpjax/launch/tpu_worker.sh install"
        ;;
    train)
        if (($# == 0)); then usage; fi
        on_workers start "$@"
        ;;
    status)
        echo "$NAME: $(state)"
        on_workers status
        ;;
    logs) resource ssh "$NAME" --node=0 --worker=0 --command="tail -n 100 -f mpjax/train.log" ;;
    stop) on_workers stop ;;
    delete) resource delete "$NAME" --force --async ;;
    *) usage ;;
esac
