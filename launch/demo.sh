#!/usr/bin/env bash
# The demo: trains on RecallWorld, generates a minute of video, measures it and writes report.html.
#
#   ./launch/demo.sh [--run FOLDER]      the folder is runs/demo of the repository unless given
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

start=$SECONDS
folder="$ROOT/runs/demo"
previous=""
for argument in "$@"; do
    if [[ "$previous" == --run ]]; then folder="$argument"; fi
    if [[ "$argument" == --run=* ]]; then folder="${argument#--run=}"; fi
    previous="$argument"
done

prepare_environment
"$VENV_PYTHON" -m mpjax demo --run "$folder" "$@"

total=$((SECONDS - start))
echo "demo: $((total - MPJAX_INSTALL_SECONDS)) s, and $MPJAX_INSTALL_SECONDS s of installation"
if [[ -f "$folder/report.html" ]]; then
    echo "report: $folder/report.html (open it in a browser)"
fi
