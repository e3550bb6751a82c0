#!/usr/bin/env bash
# One worker's side of tpu_pod.sh: install, start FLAGS, status, stop.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$ROOT"

running() {
    [[ -e train.pid ]] && kill -0 "$(cat train.pid)" 2>/dev/null
}

verb="${1:?: give install, start, status or stop}"
shift
case "$verb" in
    install)
        prepare_environment
        prepare_accelerator tpu
        ;;
    start)
        if running; then
            echo "$(hostname): a run is going on already: stop it first" >&2
            exit 1
        fi
        # In a session of its own: it outlives the connection.
        setsid nohup "$VENV_PYTHON" -m mpjax train --platform=tpu "$@" >>train.log 2>&1 </dev/null &
        echo $! >train.pid
        ;;
    status)
        if running; then word="runs"; else word="does not run"; fi
        echo "$(hostname): $word: $(tail -n 1 train.log 2>/dev/null)"
        ;;
    stop)
        if running; then
            kill -TERM "$(cat train.pid)"
            while running; do sleep 1; done
        fi
        ;;
    *)
        echo "tpu_worker.sh: $verb is no command: give install, start, status or stop" >&2
        exit 2
        ;;
esac
