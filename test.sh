#!/usr/bin/env bash
# Sets everything up, then runs the linter and the tests. Arguments go to pytest: ./test.sh -k kinematics
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
tools/setup.sh --dev
. tools/activate.sh

# Two workers share the cores, so each library keeps to one thread.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1} LP_NUM_THREADS=${LP_NUM_THREADS:-1}

if [ $# -gt 0 ]; then exec python -m pytest "$@"; fi
python -m ruff check .
exec python -m pytest -n 2 --dist loadfile -m "not slow" \
    --cov=instructvla_model --cov-report=term --cov-fail-under=90
