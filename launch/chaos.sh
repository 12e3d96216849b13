#!/usr/bin/env bash
# The fault campaign: kills a small run at random moments, restarts it until it
# finishes, and compares it with an undisturbed run.
#
#   bash launch/chaos.sh [--kills=60] [--seed=0] [--folder=runs/chaos]
#                        [--seconds=…] [--gin_file=…] [--gin.NAME=VALUE …]
#
# Makes .venv once. The last line is a summary; the exit status is 0 only if nothing
# was lost. The same command resumes an interrupted campaign.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source launch/environment.sh
make_environment

exec env PYTHONPATH=. "$VENV_PYTHON" -m launch.chaos "$@"
