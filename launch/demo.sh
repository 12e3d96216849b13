#!/usr/bin/env bash
# Runs Reinforced Self-Training on the built-in task. Needs Python 3.11 or newer:
#
#   bash launch/demo.sh [--gin.NAME=VALUE …]
#
# Makes .venv once, trains, and prints the table of results and the path of the
# report. Run again, it resumes where it stopped. MODEL_DIR sets the folder of the run
# (default: runs/demo in the repository), PYTHON the Python to use.
set -euo pipefail

model_dir="${MODEL_DIR:-}"
if [[ -n "$model_dir" && "$model_dir" != /* ]]; then
  model_dir="$PWD/$model_dir"
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
model_dir="${model_dir:-$PWD/runs/demo}"

source launch/environment.sh
make_environment

"$VENV_PYTHON" -m rest_jax.main --run_mode=rest --model_dir="$model_dir" \
  --gin_file=gin_configs/experiments/demo.gin "$@"

for result in "$model_dir"/results.json "$model_dir"/report/*; do
  if [[ -f "$result" ]]; then
    echo "$result"
  fi
done
