"""Twins by name; importing compiles nothing; tableaus and statuses are complete."""

import inspect
import subprocess
import sys

import numpy as np
import pytest

from lrcore import cpu, layout, reference, status, tableau, workspace
from lrcore.cpu import gemm


def _parameters(function):
    return list(inspect.signature(getattr(function, "py_func", function)).parameters)


@pytest.mark.parametrize("name", cpu.__all__)
def test_every_kernel_has_a_reference_with_the_same_parameters(name):
    assert _parameters(getattr(cpu, name)) == _parameters(getattr(reference, name))


def test_reference_names_are_the_kernel_names():
    assert sorted(cpu.__all__) == sorted(reference.__all__)


def test_importing_the_core_compiles_nothing():
    code = (
        "import lrcore, sys; assert 'numba' not in sys.modules\n"
        "from lrcore import cpu\n"
        "compiled = [n for n in cpu.__all__ if getattr(getattr(cpu, n), 'signatures', [])]\n"
        "assert compiled == [], compiled"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
