#!/usr/bin/env bash
# Gradient descent at learning rates across orders of magnitude against gradient flow, from the same start, over
# t = step size · iteration. Checkpoints at common times let the networks themselves be compared.
# Run: bash examples/flow.sh [folder]
set -euo pipefail
out=${1:-runs/flow}
common="--gamma 1.1 --metrics singular_values effective_rank --no-figures --quiet"
lrbias run --method flow --dt 1e-2 --steps 800 --every 1 --checkpoint-every 25 $common -o "$out/flow"
lrbias run --lr 1e-2 --steps 800 --every 1 --checkpoint-every 25 $common -o "$out/gd-1e-2"
lrbias run --lr 1e-3 --steps 8000 --every 10 --checkpoint-every 250 $common -o "$out/gd-1e-3"
lrbias run --lr 1e-4 --steps 80000 --every 100 --checkpoint-every 2500 $common -o "$out/gd-1e-4"
lrbias compare "$out"/flow "$out"/gd-* -o "$out/figures"
