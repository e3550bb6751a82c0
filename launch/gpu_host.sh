#!/usr/bin/env bash
# Trains on the NVIDIA GPUs of this machine.
#
#   ./launch/gpu_host.sh --config=FILE --run=FOLDER [further flags of `python -m mpjax train`]
#
# PLATFORM=cpu trains without a GPU.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment
platform="${PLATFORM:-gpu}"
if [[ "$platform" == gpu ]]; then
    extra="$(cuda_extra)"
    prepare_accelerator "$extra"
    nvidia-smi --list-gpus
    export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.95}"
fi
# The process itself, so that whoever stops this script stops the training, which then saves.
exec "$VENV_PYTHON" -m mpjax train --platform="$platform" "$@"
