#!/usr/bin/env bash
# One task of slurm.sbatch: runs COMMAND and notes in FOLDER/TASK when it ended and with which status.
#
#   srun bash launch/slurm_task.sh FOLDER COMMAND…
#
# srun alone tells the highest status, and a 1 or 2 is lower than what the others end with because of it. A task that
# srun or Slurm kills notes nothing.
set -uo pipefail
folder="$1"
shift
command="" told_to_end=""
# Slurm may signal this shell alone, and before the command has begun.
trap 'told_to_end=yes; [[ -z "$command" ]] || kill -TERM "$command"' TERM
"$@" &
command=$!
[[ -z "$told_to_end" ]] || kill -TERM "$command"
status=0
wait "$command" || status=$?
# A trapped signal ends `wait` before the command has ended.
while kill -0 "$command" 2>/dev/null; do
    status=0
    wait "$command" || status=$?
done
echo "$(date +%s.%N) $status $SLURM_PROCID" >"$folder/$SLURM_PROCID"
exit "$status"
