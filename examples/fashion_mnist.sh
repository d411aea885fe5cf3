#!/bin/sh
# Search on 4,000 images of Fashion-MNIST, resized to 14x14, at Linf 0.1, and export the knee:
#     sh examples/fashion_mnist.sh runs/fashion [more options of sweep]
# Debian's package dataset-fashion-mnist contains the data; DATA=FOLDER names another folder.
set -eu
OUT=$1
shift

generalist-search sweep --data fashion-mnist --data-root "${DATA:-/usr/share/datasets/fashion-mnist}" \
    --n-train 4000 --image-size 14 --epsilon 0.1 --budget 2e7 --out "$OUT" "$@"
generalist-search front "$OUT" --pick knee
generalist-search export "$OUT" --pick knee --to "$OUT/knee.pt"
