"""Every benchmark, each in a process of its own; the first that fails ends it.

    python benchmarks/run_all.py --smallest    does everything still run? No page is written
    python benchmarks/run_all.py               what `make bench` runs: measures, and writes the pages

Start-up, memory and records are tests (pytest-benchmark); the scripts are listed here, with what each takes besides.
"""

import subprocess
import sys
from pathlib import Path

from harness import SMALLEST, parsed

HERE = Path(__file__).parent
TESTS = ["-m", "pytest", str(HERE), "-s", "--benchmark-columns=min,median,rounds", "--benchmark-sort=name"]
SCRIPTS = {
    "table": [],
    "flow": [],
    "sgd": [],
    "sweeps": ["--whole"],
    "weight_values": [],
    "tracker": [],
    "curvature": [],
    "monitors": [],
}
WITHOUT_GPU = {"gpu": ["--smallest"], "gpu_model": [], "gpu_code": ["--smallest"]}  # `make bench-gpu` measures
LIBRARIES = ("chebyshev", "gpu_peak", "harness", "jobs", "peak", "peers", "plateaus", "switching")
OWN = ("run_all", "conftest")


def commands() -> dict[str, list[str]]:
    """{name: words after the interpreter}, tests first."""
    how = "--smallest" if SMALLEST else "--write"
    tests = [*TESTS, "--smallest", "--benchmark-disable"] if SMALLEST else TESTS
    scripts = {name: [str(HERE / f"{name}.py"), *words, how] for name, words in SCRIPTS.items()}
    others = {name: [str(HERE / f"{name}.py"), *words] for name, words in WITHOUT_GPU.items()}
    return {"tests": tests, **scripts, **(others if SMALLEST else {})}


def main() -> None:
    parsed()
    known = {*SCRIPTS, *WITHOUT_GPU, *LIBRARIES, *OWN}
    found = {path.stem for path in HERE.glob("*.py") if not path.stem.startswith("test_")}
    if known != found:
        sys.exit(f"run_all.py does not say what these are: {', '.join(sorted(known ^ found))}")
    for name, words in commands().items():
        print(f"\n== {name}", flush=True)
        ended = subprocess.run([sys.executable, *words], check=False)
        if ended.returncode:
            sys.exit(f"{name} failed")


if __name__ == "__main__":
    main()
