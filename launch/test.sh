#!/usr/bin/env bash
# Lint, types and tests; runs every part and names those that failed.
#
#   ./launch/test.sh [--slow] [pytest arguments]      --slow adds the tests that take minutes, and those of Beam
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

marker="not slow"
if [[ "${1:-}" == --slow ]]; then
    marker=""
    shift
fi

prepare_environment dev
cd "$ROOT"

failed=""
part() {
    local name="$1" start=$SECONDS
    shift
    echo "== $name"
    "$@" || failed="$failed, $name"
    echo "== $name: $((SECONDS - start)) s"
}

part "ruff check" "$VENV_PYTHON" -m ruff check .
part "ruff format" "$VENV_PYTHON" -m ruff format --check .
part "mypy" "$VENV_PYTHON" -m mypy
part "pytest" "$VENV_PYTHON" -m pytest -m "$marker" -n 2 "$@"

beam_tests() {
    # The import first: without Beam its test would be skipped.
    prepare_beam && "$VENV_PYTHON" -c "import apache_beam" && "$VENV_PYTHON" -m pytest tests/data/test_beam.py
}
if [[ -z "$marker" ]]; then
    part "beam" beam_tests
fi

if [[ -n "$failed" ]]; then
    echo "failed: ${failed#, }" >&2
    exit 1
fi
echo "all parts passed"
