#!/bin/sh
# Starts the sweep, or continues it if the folder holds one: run the same command after every end.
# On the head of a running Ray cluster: sh sweep.sh. Replace /shared and the options of the sweep.
set -eu
OUT=${OUT:-/shared/runs/cifar10}
ADDRESS=${ADDRESS:-auto}
PATH=${VENV:-/shared/venv}/bin:$PATH
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"

if [ -e "$OUT/sweep.json" ]; then
    exec generalist-search resume "$OUT" --address "$ADDRESS"
fi
exec generalist-search sweep --address "$ADDRESS" --out "$OUT" \
    --data cifar10 --data-root /shared/data --preset paper --budget 1e10 \
    --gpus-per-trial 0.5 --cpus-per-trial 4 --max-retries 20
