"""What a run was made with."""

import functools
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lrbias.devices import CPU, Device

PORTABLE = "portable for losses and parameters from the same start; machine for what goes through an SVD"


def made_with(promise: str = PORTABLE, device: Device = CPU) -> dict[str, Any]:
    """Versions, commit, machine, device and the promise level of a run."""
    return {**_this_process(), **device.describe, "promise": promise}


@functools.cache
def _this_process() -> dict[str, Any]:
    """What stays while the process lives. To read it again for each run would take longer than a short run."""
    from lrbias import __version__

    names = ("numba", "llvmlite", "numpy", "scipy", "zarr")
    return {
        "lrbias": __version__,
        "commit": _commit_id(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "system": platform.platform(),
        "cpu": _cpu_name(),
    }


def _commit_id() -> str | None:
    """The commit of a source checkout, None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:  # no git on this machine
        return None
    return answer.stdout.strip() or None


def _cpu_name() -> str:
    import llvmlite.binding

    return llvmlite.binding.get_host_cpu_name()
