"""The same bits whatever the vectors of the CPU are: hashes of kernels in processes that compile for another one."""

import importlib
import json
import os
import subprocess
import sys

import llvmlite.binding
import pytest

from conftest import ROOT

OLDER = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2"}
OTHERS = {"128": {"LRBIAS_VECTOR_BITS": "128"}, "256": {"LRBIAS_VECTOR_BITS": "256"}, "older": OLDER}
QUICK = ("test_products.training_hash", "test_spectra.values_hash")
SLOW = (
    "test_weight_values.weight_values_hash",
    "test_path.path_hash",
    "test_sgd.sgd_hash",
    "test_adaptive.flow_hash",
    "test_hessian.curvature_hash",
)
ASK = """
import importlib, json, sys
sys.path.insert(0, "tests")
names = [name.split(".") for name in sys.argv[1:]]
print(json.dumps([getattr(importlib.import_module(module), function)() for module, function in names]))
"""


def _elsewhere(names, other, cache):
    """The hashes of these names, as a process finds them that compiles for another CPU."""
    environment = os.environ | OTHERS[other] | {"NUMBA_CACHE_DIR": str(cache)}
    answer = subprocess.run(
        [sys.executable, "-c", ASK, *names], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return dict(zip(names, json.loads(answer.stdout), strict=True))


def _here(names):
    split = [name.split(".") for name in names]
    found = [getattr(importlib.import_module(module), function)() for module, function in split]
    return dict(zip(names, found, strict=True))


def test_bits_do_not_depend_on_the_vector_width(tmp_path):
    """Vectors of 2 doubles against what this CPU has: 8 on AVX-512."""
    assert _elsewhere(QUICK, "128", tmp_path) == _here(QUICK)


@pytest.mark.evidence
@pytest.mark.parametrize("other", OTHERS)
def test_bits_of_every_kernel_do_not_depend_on_the_cpu(other, tmp_path):
    """Slow to compile. What these kernels are made of is held to this above, and golden.json holds between machines."""
    if other == "older" and "x86_64" not in llvmlite.binding.get_process_triple():
        pytest.skip("the older CPU with FMA that is named here is an x86 one")
    if not llvmlite.binding.get_host_cpu_features().get("fma", other != "older"):
        pytest.skip("this CPU has no FMA unit, so code for one that has cannot run")
    assert _elsewhere(QUICK + SLOW, other, tmp_path) == _here(QUICK + SLOW)
