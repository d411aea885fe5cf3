#!/bin/sh
# Search natural accuracy against robustness in Linf and L2 at once, on the digits, by an expert for
# each; measure the front again by attacks in each norm, and export the knee:
#     sh examples/several_norms.sh runs/norms [more options of sweep]
# ATTACKS=pgd-20,autoattack verifies the front by AutoAttack, which takes longer.
set -eu
OUT=$1
shift

generalist-search sweep --norms linf,l2 --objectives natural,union --trials 10 --out "$OUT" "$@"
generalist-search verify "$OUT" --attacks "${ATTACKS:-pgd-20}" --n-images 200
generalist-search front "$OUT" --pick knee
generalist-search export "$OUT" --pick knee --to "$OUT/knee.pt"
