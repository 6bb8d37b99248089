"""A sweep makes a run for every combination of settings, on all cores, in a folder that is also the queue.

All runs end near the loss of the best approximation of rank 2, whose effective rank is 1.5: small starts reach that.
"""

import tempfile
from pathlib import Path

import lrbias as lb

base = {"shape": [32, 32], "values": [10.0, 5.0, 2.5, 1.25], "method": "flow", "dt": 5e-3, "steps": 20_000}
base |= {"stop_loss": 4.0, "every": 1, "metrics": ["singular_values", "effective_rank"]}
over = {"gamma": [0.4, 0.6, 0.8, 1.0, 1.2], "depth": [2, 3, 4]}

if __name__ == "__main__":  # workers are processes that import this file
    with tempfile.TemporaryDirectory() as folder:
        made = lb.sweep(base, over, Path(folder) / "sweep")
        print(f"{len(made)} runs: {sorted(set(made.statuses().values()))}")
        for row in made.table():
            if row["gamma"] in (0.4, 1.2):
                rank, loss = row["product/effective_rank"], row["last_loss"]
                print(f"{row['run']}: effective rank {rank:.2f} at loss {loss:.2f}")
        lb.sweep_plots.map_over(made, "product/effective_rank", x="gamma", y="depth").savefig("14_sweep.png")
