"""Counterparts by name; who imports Numba and CUDA; importing compiles nothing; tableaus and statuses are complete."""

import ast
import functools
import inspect
import os
import subprocess
import sys

import numpy as np
import pytest

from conftest import ROOT
from lrcore import cpu, layout, reference, status, tableau
from lrcore.cpu import gemm, workspace


def _parameters(function):
    return list(inspect.signature(getattr(function, "py_func", function)).parameters)


@pytest.mark.parametrize("name", cpu.__all__)
def test_every_kernel_has_a_reference_with_the_same_parameters(name):
    assert _parameters(getattr(cpu, name)) == _parameters(getattr(reference, name))


def test_reference_names_are_the_kernel_names():
    assert sorted(cpu.__all__) == sorted(reference.__all__)


@pytest.mark.parametrize("name", cpu.__all__)
def test_every_kernel_has_a_counterpart_on_the_gpu_with_the_same_parameters(name, gpu):
    assert _parameters(getattr(gpu, name)) == _parameters(getattr(cpu, name))


def test_the_gpu_has_the_names_of_the_cpu_and_what_concerns_it_alone(gpu):
    own = {"DeviceMemoryError", "device_properties", "device_put", "free_memory", "missing", "workspace"}
    assert sorted(gpu.__all__) == sorted([*cpu.__all__, *own])
    assert all(hasattr(gpu, name) for name in gpu.__all__)


def test_scratch_is_asked_for_in_the_same_way_on_both(gpu):
    names = {name for name in vars(workspace) if name.startswith("allocate") or name == "thread_workspaces"}
    assert set(gpu.workspace.__all__) == names | {"DeviceMemoryError"}
    for name in names:
        assert inspect.signature(getattr(gpu.workspace, name)) == inspect.signature(getattr(workspace, name)), name


FOLDERS = ("lrcore", "bindings", "benchmarks", "tests", "examples")
CUDA = {"lrcore/cuda/_target.py", "lrcore/cuda/_simulator.py"}
NUMBA = CUDA | {
    f"lrcore/cpu/{name}.py"
    for name in (
        "_arrays",
        "_cache",
        "_lanes",
        "_runs",
        "_strips",
        "_target",
        "_tile",
        "_unrolled",
        "_unrolled_runs",
        "_vector",
        "compilation",
    )
}
MEASURED = {"benchmarks/peak.py", "benchmarks/sgd.py"}
EMULATED = {"tests/test_batch.py"}
COMPILED = {"tests/test_cache.py", "tests/test_compiling.py"}


@functools.cache
def _sources():
    """[(path, syntax tree)] of every file of the project."""
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    return [(file.relative_to(ROOT).as_posix(), ast.parse(file.read_text())) for file in files]


@functools.cache
def _imports():
    """{path: names of what it imports, wherever the import stands}."""
    return {path: {name for node in ast.walk(tree) for name in _imported(node)} for path, tree in _sources()}


def _imported(node):
    if isinstance(node, ast.ImportFrom):
        return [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def _importing(package):
    """The files with an import of a package or of something in it."""
    inside = f"{package}."
    return {path for path, names in _imports().items() if any(f"{name}.".startswith(inside) for name in names)}


def test_cuda_is_imported_where_kernels_are_decorated_or_simulated():
    assert _importing("numba.cuda") | _importing("numba_cuda") == CUDA


def test_numba_is_imported_where_kernels_are_decorated_or_made_of_instructions():
    assert _importing("numba") == NUMBA | MEASURED | EMULATED | COMPILED


def test_its_own_kernels_alone_are_written_for_cuda():
    apart = {path for path in _importing("lrcore.cuda._target.cuda") if not path.startswith("lrcore/cuda/")}
    assert {path for path in apart if not path.startswith("benchmarks/gpu")} == set()


def test_one_file_of_the_bindings_knows_of_the_gpu():
    found = {path for path in _importing("lrcore.cuda") if path.startswith("bindings")}
    assert found == {"bindings/lrbias/devices.py"}


def test_nothing_is_compiled_with_fastmath():
    for path, tree in _sources():
        if path.startswith("lrcore/"):
            options = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
            words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            assert "fastmath" not in options | words, path


def _run(code, **environment):
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | environment)


def test_pytorch_is_imported_for_real_networks_alone():
    """And nothing of the rest reads them: a recorded run is opened, drawn and reported without it."""
    found = {path for path in _importing("torch") if path.startswith(("lrcore", "bindings"))}
    assert all(
        path.startswith("bindings/lrbias/nn/") or path == "bindings/lrbias/studies/galanti/_training.py"
        for path in found
    )
    assert len(found) > 5
    _run(
        "import sys, lrbias as lb, lrbias.runs._tracked, lrbias.reports._report, lrbias.studies.galanti._tables\n"
        "lb.plots, lb.open, lb.nn\n"
        "assert not {'torch', 'monai', 'lightning', 'transformers'} & set(sys.modules)"
    )


def test_importing_the_core_compiles_nothing():
    _run(
        "import lrcore, sys; assert 'numba' not in sys.modules\n"
        "from lrcore import cpu\n"
        "compiled = [n for n in cpu.__all__ if getattr(getattr(cpu, n), 'signatures', [])]\n"
        "assert compiled == [], compiled\n"
        "assert not {'numba.cuda', 'numba_cuda', 'lrcore.cuda'} & set(sys.modules)"
    )


def test_importing_the_bindings_does_not_import_cuda():
    _run("import lrbias, sys; assert not {'numba.cuda', 'numba_cuda', 'lrcore.cuda'} & set(sys.modules)")


def test_importing_the_kernels_of_the_gpu_compiles_nothing_and_needs_none(gpu):
    _run(
        "import lrcore.cuda\n"
        "from lrcore.cuda._target import KERNELS, SIMULATED\n"
        "compiled = [kernel.name for kernel in KERNELS if kernel._compiled.overloads]\n"
        "assert KERNELS and not SIMULATED and compiled == [], compiled",
        NUMBA_ENABLE_CUDASIM="0",
        CUDA_VISIBLE_DEVICES="",
    )


def test_layers_are_views_and_flatten_is_their_inverse(rng):
    widths = (3, 5, 2, 4)
    params = rng.normal(size=layout.size(widths))
    layers = layout.layers(params, widths)
    assert [layer.shape for layer in layers] == [(5, 3), (2, 5), (4, 2)]
    again, found = layout.flatten(layers)
    assert np.array_equal(again, params)
    assert tuple(found) == widths
    layers[1][0, 0] = 7
    assert params[15] == 7


def test_every_status_has_a_sentence():
    codes = {value for name, value in vars(status).items() if name.isupper() and isinstance(value, int)}
    assert codes == set(status.MEANING)


def test_a_tableau_refuses_wrong_coefficients():
    with pytest.raises(AssertionError, match="not of order"):
        tableau._explicit("wrong", [[1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 5], order=4)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_tableaus_have_their_order_and_no_more(name, order):
    method = tableau.TABLEAUS[name]
    defects = tableau.order_conditions(method.a, method.b)
    assert all(defects[k] < 1e-14 for k in range(1, order + 1))
    assert order == 4 or defects[order + 1] > 1e-3


def test_the_workspace_is_exactly_as_large_as_documented():
    work = workspace.allocate((3, 5, 2, 4), np.float32, stages=4)
    assert (work.prefix.size, work.residual.size, work.back.size, work.columns.size) == (6, 12, 30, 5)
    assert (work.square.size, work.sums.size) == (25, 0)
    assert work.stages.shape == (4, 33)
    assert {buffer.dtype for buffer in work[:-4]} == {np.dtype(np.float32)}
    assert work.panel.ctypes.data % 64 == 0
    assert workspace.allocate((600, 600, 600)).sums.size == gemm.BLOCK_ROWS * 600
