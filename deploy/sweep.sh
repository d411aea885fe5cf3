#!/bin/sh
# Begin the sweep, or go on with it if its folder holds one: the same command after every end.
# Where Ray runs already, on its head: sh sweep.sh. Replace /shared and the search by your own.
set -eu
OUT=${OUT:-/shared/runs/cifar10}
ADDRESS=${ADDRESS:-auto}
PATH=${VENV:-/shared/venv}/bin:$PATH
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"

if [ -e "$OUT/sweep.json" ]; then
    exec generalist-search resume "$OUT" --address "$ADDRESS"
fi
exec generalist-search sweep --address "$ADDRESS" --out "$OUT" \
    --data cifar10 --data-root /shared/data --preset paper --space full --trials 200 \
    --gpus-per-trial 0.5 --cpus-per-trial 4 --max-retries 20
