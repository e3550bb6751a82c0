# Sourced by the launch scripts. Defines `prepare_environment [dev]`: makes .venv at the root of the repository and
# installs into it, only when the requirements, the Python or the place of the repository changed.
#
# PYTHON names the interpreter, 3.11 or newer; without it an existing .venv keeps its own, and a new one takes
# the newest of python3.13, python3.12, python3.11 and python3.
# Sets ROOT and VENV_PYTHON, exports MPJAX_INSTALL_SECONDS (0 where there was nothing to install).
# shellcheck shell=bash

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV_PYTHON="$ROOT/.venv/bin/python"

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
for name in ("pyproject.toml", "requirements.txt", "requirements-dev.txt"):
    digest.update(pathlib.Path(sys.argv[1], name).read_bytes())
print(digest.hexdigest())
PYTHON_CODE
}

prepare_environment() {
    local kind="${1:-run}" start=$SECONDS
    local python fingerprint stamp="$ROOT/.venv/installed" requirements=(-r "$ROOT/requirements.txt")
    python="$(_choose_python)" || return 1
    fingerprint="$(_fingerprint "$python")"
    export MPJAX_INSTALL_SECONDS=0
    # The stamp is "run HASH" or "dev HASH"; a development environment serves a plain run too.
    case "$(cat "$stamp" 2>/dev/null)" in
        "$kind $fingerprint" | "dev $fingerprint") return ;;
    esac
    if [[ "$kind" == dev ]]; then
        requirements+=(-r "$ROOT/requirements-dev.txt")
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
