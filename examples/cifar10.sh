#!/bin/sh
# Search on CIFAR-10 around the paper's setting (ResNet-18, Linf 8/255, 120 epochs):
#     sh examples/cifar10.sh runs/cifar10
# The same command continues a sweep that was interrupted. Two trials share a GPU. The data are
# downloaded.
set -eu
OUT=$1

if [ -e "$OUT/sweep.json" ]; then
    generalist-search resume "$OUT"
else
    generalist-search sweep --data cifar10 --data-root data --download --preset paper \
        --budget 5e9 --gpus-per-trial 0.5 --cpus-per-trial 4 --repeats 3 --out "$OUT"
fi
generalist-search verify "$OUT" --ray --gpus-per-trial 1
generalist-search front "$OUT" --pick knee
generalist-search export "$OUT" --pick knee --to "$OUT/knee.pt"
