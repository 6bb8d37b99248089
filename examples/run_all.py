"""Runs the numbered examples in runs/examples, one after the other, and says how many seconds each took.

python examples/run_all.py          fails where one fails, warns, or leaves anything but its one figure
python examples/run_all.py --docs   copies the figures into docs/gallery, too
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "runs/examples"
GALLERY = ROOT / "docs/gallery"


def run(script):
    """Run it, and return the path of its figure; SystemExit says what is wrong with it."""
    known = set(FOLDER.iterdir())
    start = time.perf_counter()
    print(f"== {script.name}", flush=True)
    # An error in a script is worth reading as it is, so its traceback goes where ours would.
    answer = subprocess.run([sys.executable, "-W", "error", script], cwd=FOLDER)
    if answer.returncode:
        sys.exit(f"{script.name} failed with exit code {answer.returncode}.")
    made = set(FOLDER.iterdir()) - known
    figure = FOLDER / f"{script.stem}.png"
    if made != {figure}:
        sys.exit(f"{script.name} made {sorted(path.name for path in made)}; expected {figure.name} and nothing else.")
    print(f"   {time.perf_counter() - start:.1f} s\n", flush=True)
    return figure


def main(into_docs):
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    FOLDER.mkdir(parents=True)
    figures = [run(script) for script in sorted((ROOT / "examples").glob("[0-9]*.py"))]
    if into_docs:
        GALLERY.mkdir(exist_ok=True)
        for figure in figures:
            shutil.copyfile(figure, GALLERY / figure.name)
    print(f"{len(figures)} examples, {len(figures)} figures in {FOLDER.relative_to(ROOT)}")


if __name__ == "__main__":
    main(into_docs="--docs" in sys.argv[1:])
