#!/usr/bin/env bash
# The fault campaign: kills a small run at random moments, starts it again until
# it ends, and compares it with one that nobody disturbed.
#
#   bash launch/chaos.sh [--kills=60] [--seed=0] [--folder=runs/chaos]
#                        [--seconds=…] [--gin_file=…] [--gin.NAME=VALUE …]
#
# Makes .venv once. The last line is a summary; the exit status is 0 only if
# nothing was lost. The same command goes on where it was stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source launch/environment.sh
make_environment

exec env PYTHONPATH=. "$VENV_PYTHON" -m launch.chaos "$@"
