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
QUICK = ("test_products.training_hash",)
SLOW = (
    "test_spectra.values_hash",
    "test_weight_values.weight_values_hash",
    "test_sheet.sheet_hash",
    "test_path.path_hash",
    "test_sgd.sgd_hash",
    "test_adaptive.flow_hash",
    "test_hessian.curvature_hash",
)
ASK = (
    "import json, sys; sys.path.insert(0, 'tests'); import test_bits; print(json.dumps(test_bits.hashes(sys.argv[1:])))"
)


def hashes(names):
    """{module.function: the hash that it returns}."""
    split = {name: name.split(".") for name in names}
    return {name: getattr(importlib.import_module(module), function)() for name, (module, function) in split.items()}


def _elsewhere(names, other, cache):
    """The same, from a process that compiles for another CPU."""
    environment = os.environ | OTHERS[other] | {"NUMBA_CACHE_DIR": str(cache)}
    answer = subprocess.run(
        [sys.executable, "-c", ASK, *names], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_bits_do_not_depend_on_the_vector_width(tmp_path):
    """Vectors of 2 doubles against what this CPU has: 8 on AVX-512."""
    assert _elsewhere(QUICK, "128", tmp_path) == hashes(QUICK)


@pytest.mark.evidence
@pytest.mark.parametrize("other", OTHERS)
def test_bits_of_every_kernel_do_not_depend_on_the_cpu(other, tmp_path):
    """Slow to compile; what these kernels are made of is held to this above."""
    if other == "older":
        _needs_an_x86_with_fma()
    assert _elsewhere(QUICK + SLOW, other, tmp_path) == hashes(QUICK + SLOW)


def _needs_an_x86_with_fma():
    if "x86_64" not in llvmlite.binding.get_process_triple():
        pytest.skip("the older CPU with FMA that is named here is an x86 one")
    if not llvmlite.binding.get_host_cpu_features().get("fma"):
        pytest.skip("this CPU has no FMA unit, so code for one that has cannot run")
