#!/usr/bin/env bash
# Runs on a TPU worker, in the copied checkout: makes .venv with the tested
# versions and the extras that are named, as in
#
#   bash launch/setup_worker.sh tpu,iwslt
#
# Images of TPU VMs have an older Python than is needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

if ! find_python > /dev/null 2>&1; then
  # A new machine installs its updates by itself and holds the lock meanwhile.
  sudo apt-get -o DPkg::Lock::Timeout=600 update --quiet
  sudo apt-get -o DPkg::Lock::Timeout=600 install --quiet --yes python3.11-venv
fi
make_environment "$1"
