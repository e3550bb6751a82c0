# Sourced by the launch scripts. Defines
#   prepare_environment [dev]      makes .venv at the root of the repository and installs into it, only when the
#                                  requirements, the Python or the place of the repository changed
#   prepare_beam                   makes an environment inside it for the tests of Apache Beam, whose packages are older
#                                  ones than the rest has; sets VENV_PYTHON to its Python
#   prepare_accelerator EXTRA      adds JAX for tpu, cuda12 or cuda13 where it is missing
#   cuda_extra                     prints cuda12 or cuda13, whichever the driver of this machine can run
#
# PYTHON names the interpreter, 3.11 or newer; without it an existing .venv keeps its own, and a new one takes
# the newest of python3.13, python3.12, python3.11 and python3.
# MPJAX_PYTHON names an interpreter that has everything already, as in a container: then nothing is installed.
# Sets ROOT and VENV_PYTHON, exports MPJAX_INSTALL_SECONDS (0 where there was nothing to install).
# shellcheck shell=bash

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV_PYTHON="${MPJAX_PYTHON:-$ROOT/.venv/bin/python}"

_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

_choose_python() {
    local candidate
    if [[ -n "${PYTHON:-}" ]]; then
        if _new_enough "$PYTHON"; then
            echo "$PYTHON"
            return
        fi
        echo "PYTHON is '$PYTHON', which is no Python 3.11 or newer: set PYTHON to one that is" >&2
        return 1
    fi
    for candidate in "$VENV_PYTHON" python3.13 python3.12 python3.11 python3; do
        if _new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "no Python 3.11 or newer was found: install one, or set PYTHON to its path" >&2
    return 1
}

# What an installation depends on: the Python, the place of the repository, and the text of the files.
_fingerprint() {
    "$1" - "$ROOT" <<'PYTHON_CODE'
import hashlib, pathlib, platform, sys
digest = hashlib.sha256(f"{platform.python_implementation()} {platform.python_version()} {sys.argv[1]}".encode())
for name in ("pyproject.toml", *(f"requirements{kind}.txt" for kind in ("", "-dev", "-plan", "-beam"))):
    digest.update(pathlib.Path(sys.argv[1], name).read_bytes())
print(digest.hexdigest())
PYTHON_CODE
}

prepare_environment() {
    local kind="${1:-run}" start=$SECONDS
    local python fingerprint stamp="$ROOT/.venv/installed" requirements=(-r "$ROOT/requirements.txt")
    export MPJAX_INSTALL_SECONDS=0
    if [[ -n "${MPJAX_PYTHON:-}" ]]; then return; fi
    python="$(_choose_python)" || return 1
    fingerprint="$(_fingerprint "$python")"
    # The stamp is "run HASH" or "dev HASH"; a development environment serves a plain run too.
    case "$(cat "$stamp" 2>/dev/null)" in
        "$kind $fingerprint" | "dev $fingerprint") return ;;
    esac
    if [[ "$kind" == dev ]]; then
        requirements+=(-r "$ROOT/requirements-dev.txt" -r "$ROOT/requirements-plan.txt")
    fi
    echo "environment: installing into $ROOT/.venv"
    # An interrupted run may have left a .venv without pip, and PYTHON may ask for another version than it has.
    local version='import sys; print(sys.version_info[:3])'
    if ! "$VENV_PYTHON" -m pip --version >/dev/null 2>&1 ||
        [[ "$("$VENV_PYTHON" -c "$version")" != "$("$python" -c "$version")" ]]; then
        # A .venv cannot be cleared by its own Python.
        if [[ "$python" == "$VENV_PYTHON" ]]; then
            python="$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')"
        fi
        "$python" -m venv --clear "$ROOT/.venv"
    fi
    "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check "${requirements[@]}"
    "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps -e "$ROOT"
    # Last, so that an interrupted installation is taken up again.
    echo "$kind $fingerprint" >"$stamp"
    MPJAX_INSTALL_SECONDS=$((SECONDS - start))
    echo "environment: installed in $MPJAX_INSTALL_SECONDS s"
}

prepare_beam() {
    if [[ -n "${MPJAX_PYTHON:-}" ]]; then return; fi
    local folder="$ROOT/.venv/beam" python="$VENV_PYTHON" fingerprint
    fingerprint="$(_fingerprint "$python")"
    VENV_PYTHON="$folder/bin/python"
    if [[ "$(cat "$folder/installed" 2>/dev/null)" == "$fingerprint" ]]; then return; fi
    echo "environment: installing Apache Beam into $folder"
    "$python" -m venv --clear "$folder" &&
        "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check \
            -r "$ROOT/requirements.txt" -r "$ROOT/requirements-beam.txt" pytest &&
        echo "$fingerprint" >"$folder/installed"
}

prepare_accelerator() {
    local extra="$1" module
    if [[ -n "${MPJAX_PYTHON:-}" ]]; then return; fi
    case "$extra" in
        tpu) module=libtpu ;;
        cuda12 | cuda13) module="jax_${extra}_plugin" ;;
        *)
            echo "no JAX for '$extra': give tpu, cuda12 or cuda13" >&2
            return 1
            ;;
    esac
    if "$VENV_PYTHON" -c "import importlib.util, sys; sys.exit(not importlib.util.find_spec('$module'))"; then return; fi
    echo "environment: installing JAX for $extra"
    "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check -r "$ROOT/requirements.txt" "jax[$extra]"
}

cuda_extra() {
    local driver
    if ! driver="$(nvidia-smi --query-gpu=driver_version --format=csv,noheader)" || [[ -z "$driver" ]]; then
        echo "nvidia-smi finds no GPU on this machine: install its driver, or set PLATFORM=cpu to train without" >&2
        return 1
    fi
    # CUDA 13 needs a driver of the 580 series.
    if ((${driver%%.*} >= 580)); then echo cuda13; else echo cuda12; fi
}
