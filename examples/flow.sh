#!/usr/bin/env bash
# Gradient descent at three learning rates against gradient flow, from the same start, over t = step size · iteration.
# Run: bash examples/flow.sh [folder]
set -euo pipefail
out=${1:-runs/flow}
common="--gamma 1.1 --every 1 --metrics singular_values effective_rank --no-figures --quiet"
lrbias run --method flow --dt 1e-2 --steps 800 $common -o "$out/flow"
lrbias run --lr 2e-3 --steps 4000 ${common/every 1/every 5} -o "$out/gd-2e-3"
lrbias run --lr 1e-2 --steps 800 $common -o "$out/gd-1e-2"
lrbias run --lr 2e-2 --steps 400 $common -o "$out/gd-2e-2"
lrbias compare "$out"/flow "$out"/gd-* -o "$out/figures"
