"""Kernels made for the widths of a network: the bits of the general ones, and when they take their place."""

import itertools
import os
import random
import subprocess
import sys

import numpy as np
import pytest

import lrbias as lb
from conftest import ROOT
from lrbias.devices import CPU, Device
from lrbias.steppers import _specialized as choosing
from lrcore import cpu, layout
from lrcore.cpu import specialized, workspace
from lrcore.status import DIVERGED, OK
from lrcore.tableau import TABLEAUS
from runs import fingerprint

STEPS = 30


def _network(shape, dtype, scale=0.4):
    rng = np.random.default_rng(len(shape) + sum(shape))
    params = (scale * rng.normal(size=layout.size(shape))).astype(dtype)
    return params, rng.normal(size=(shape[-1], shape[0])).astype(dtype)


def _steps(kernel, shape, params, target, scheme, cuts=(STEPS,), size=0.02):
    """(status of the last call, parameters, losses) after calls of so many steps of a size."""
    dtype = params.dtype
    params = layout.aligned_copy(params, dtype)
    tableau = TABLEAUS[scheme].astype(dtype) if scheme else None
    work = workspace.allocate(layout.as_widths(shape), dtype, tableau[1].size if tableau else 0)
    numbers = (dtype.type(size), tableau) if tableau else (dtype.type(size),)
    found = []
    for length in cuts:
        losses = np.full(length, -1, dtype)
        status = kernel(params, layout.as_widths(shape), target, *numbers, losses, work)
        found.append(losses)
    return status, params, np.concatenate(found)


def _pair(shape, dtype, scheme):
    name = "rk_steps" if scheme else "gd_steps"
    return getattr(cpu, name), getattr(specialized, name)(shape, np.dtype(dtype))


def _same(general, made):
    assert made[0] == general[0]
    np.testing.assert_array_equal(made[1], general[1])
    np.testing.assert_array_equal(made[2], general[2])


SHAPES = [
    ((4, 4, 4, 4), np.float64, ""),
    ((4, 4, 4, 4), np.float64, "rk4"),
    ((3, 5, 7), np.float32, "heun"),
    ((9, 2, 6), np.float64, ""),
    ((1, 1, 1), np.float32, ""),
]


@pytest.mark.parametrize(("shape", "dtype", "scheme"), SHAPES)
def test_bits_are_those_of_the_general_kernel(shape, dtype, scheme):
    general, made = _pair(shape, dtype, scheme)
    params, target = _network(shape, dtype)
    expected = _steps(general, shape, params, target, scheme)
    assert expected[0] == OK
    assert expected[2][-1] < expected[2][0]
    _same(expected, _steps(made, shape, params, target, scheme))
    _same(expected, _steps(made, shape, params, target, scheme, cuts=(7, 1, 0, STEPS - 8)))


@pytest.mark.parametrize(("shape", "dtype", "scheme"), SHAPES[:3])
@pytest.mark.parametrize("scale", [20, 1e30])
def test_divergence_is_that_of_the_general_kernel(shape, dtype, scheme, scale):
    general, made = _pair(shape, dtype, scheme)
    params, target = _network(shape, dtype, scale)
    expected = _steps(general, shape, params, target, scheme)
    assert expected[0] == DIVERGED
    _same(expected, _steps(made, shape, params, target, scheme))


@pytest.mark.parametrize("size", [0, -0.02, 1e30, np.inf, np.nan])
def test_any_step_size_makes_the_same_bits(size):
    shape = (3, 5, 7)
    params, target = _network(shape, np.float32)
    for scheme in ("", "euler", "heun"):
        general, made = _pair(shape, np.float32, scheme)
        _same(*(_steps(kernel, shape, params, target, scheme, (1, 2), size) for kernel in (general, made)))


def _batch(kernel, shape, params, target, scheme, runs=21):
    """(statuses, parameters, losses) of many runs, every third of which starts so far out that it diverges."""
    dtype = params.dtype
    lanes = layout.lanes(dtype)
    factors = np.where(np.arange(runs) % 3 == 2, 60, np.linspace(0.5, 1.5, runs)).astype(dtype)
    batch = layout.to_lanes(factors[:, None] * params, lanes)
    targets = layout.to_lanes(np.tile(target.ravel(), (runs, 1)), lanes)
    rates = layout.to_lanes(np.linspace(0.01, 0.03, runs).astype(dtype), lanes)
    losses = np.full((len(batch), STEPS, lanes), -1, dtype)
    statuses = np.zeros((len(batch), lanes), np.int64)
    tableau = TABLEAUS[scheme].astype(dtype) if scheme else None
    work = workspace.allocate_batch(shape, dtype, tableau[1].size if tableau else 0)
    numbers = (rates, tableau) if tableau else (rates,)
    kernel(batch, layout.as_widths(shape), targets, *numbers, losses, statuses, work)
    return statuses, batch, losses


@pytest.mark.parametrize(("shape", "dtype", "scheme"), SHAPES[:3])
def test_bits_of_batches_are_those_of_the_general_kernel(shape, dtype, scheme):
    name = "batch_rk_steps" if scheme else "batch_gd_steps"
    params, target = _network(shape, dtype)
    expected = _batch(getattr(cpu, name), shape, params, target, scheme)
    assert set(expected[0].ravel().tolist()) == {OK, DIVERGED}
    for whole, made in zip(
        expected, _batch(getattr(specialized, name)(shape, dtype), shape, params, target, scheme), strict=True
    ):
        np.testing.assert_array_equal(made, whole)


@pytest.mark.parametrize("name", TABLEAUS)
def test_every_tableau_is_one_that_they_take(name):
    """Each stage starts from the slope of the one before it alone, which `rk_steps` relies on."""
    a = TABLEAUS[name].a
    np.testing.assert_array_equal(a, np.diag(np.diag(a, -1), -1))


def test_only_small_networks_have_kernels_of_their_own():
    assert specialized.fits((4, 4, 4, 4), np.float64)
    assert specialized.fits((12, 3, 1), np.float32)
    assert not specialized.fits((4, 4), np.float64), "one layer has no product"
    assert not specialized.fits((4, 13, 4), np.float64)
    assert not specialized.fits((2,) * 10, np.float64), "a name would grow with the depth"
    assert not specialized.fits((12,) * 8, np.float64), "too many instructions"
    assert specialized.fits_batch((4, 4, 4, 4))
    assert not specialized.fits_batch((8, 8, 8, 8))
    assert not specialized.fits_batch((4, 4))


def _chosen(shape, device=CPU, threads=1):
    return choosing.chain_kernel("gd_steps", device, shape, np.dtype(np.float64), threads)


def test_wide_networks_threads_and_other_devices_keep_the_general_kernel():
    class Other(Device):
        is_accelerator = True

    assert _chosen((20, 20, 20)) is cpu.gd_steps
    assert _chosen((4, 4, 4, 4), threads=2) is cpu.gd_steps
    assert _chosen((4, 4, 4, 4), device=Other()) is cpu.gd_steps
    assert _chosen((4, 4, 4, 4)) is _chosen((4, 4, 4, 4)), "runs of one shape earn it together"
    batch = ("batch_gd_steps", CPU, (8, 8, 8, 8), np.dtype(np.float64))
    assert choosing.batch_kernel(*batch) is cpu.batch_gd_steps


def _earned(seconds, monkeypatch):
    """A kernel of two forms that begins with so many seconds to earn, on a clock that each look moves by one; calls."""
    calls = []
    clock = itertools.count()
    monkeypatch.setattr(choosing.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(specialized, "is_kept", lambda made: False)
    monkeypatch.setattr(choosing, "COMPILE_SECONDS", seconds)
    return choosing._EarnedKernel(lambda: calls.append("general"), lambda: calls.append("made")), calls


def test_a_kernel_is_earned_by_what_the_general_one_took(monkeypatch):
    kernel, calls = _earned(3, monkeypatch)
    for _ in range(5):
        kernel()
    assert calls == ["general"] * 3 + ["made"] * 2


def test_compiling_the_general_kernel_earns_nothing(monkeypatch):
    kernel, calls = _earned(3, monkeypatch)
    compiled = itertools.count()
    monkeypatch.setattr(choosing, "compile_seconds", lambda: next(compiled))
    for _ in range(5):
        kernel()
    assert calls == ["general"] * 5


def _counted(kernel, calls):
    def call(*arguments):
        calls.append(len(arguments))
        return kernel(*arguments)

    return call


@pytest.mark.parametrize("method", [lb.GD(lr=0.02), lb.GradientFlow(dt=0.02)], ids=lambda method: method.name)
def test_a_run_that_changes_its_kernel_keeps_its_bits(method, monkeypatch):
    problem = lb.Factorization(lb.from_singular_values((4, 4), [3.0, 1.5], seed=3))
    network = lb.Network.gaussian((4, 4, 4, 4), gamma=1.0, seed=2)
    arguments = {"steps": 400, "record": lb.Record(every=7), "progress": False, "forecast": False, "compress": "off"}
    whole = lb.train(problem, network, method, **arguments)
    monkeypatch.setattr(choosing, "COMPILE_SECONDS", 1e-4)
    monkeypatch.setattr(choosing, "LOAD_SECONDS", 1e-4)
    choosing._earned.cache_clear()
    name = "rk_steps" if method.name == "flow" else "gd_steps"
    kernel = choosing._earned(name, (4, 4, 4, 4), np.dtype(np.float64))
    general, made = [], []
    monkeypatch.setattr(kernel, "_general", _counted(kernel._general, general))
    monkeypatch.setattr(kernel, "_made", _counted(kernel._made, made))
    changed = lb.train(problem, network, method, **arguments)
    assert general, "the kernel for these widths made all steps"
    assert made, "the general kernel made all steps"
    choosing._earned.cache_clear()
    assert fingerprint(changed) == fingerprint(whole)


@pytest.mark.evidence
def test_bits_of_random_shapes():
    chance = random.Random(5)
    made_for = 0
    while made_for < 60:
        shape = tuple(chance.randint(1, 12) for _ in range(chance.randint(3, 6)))
        dtype = chance.choice([np.float64, np.float32])
        scheme = chance.choice(["", "euler", "heun", "rk4"])
        if not specialized.fits(shape, dtype):
            continue
        general, made = _pair(shape, dtype, scheme)
        params, target = _network(shape, dtype, 0.3)
        _same(_steps(general, shape, params, target, scheme), _steps(made, shape, params, target, scheme))
        if specialized.fits_batch(shape):
            general, made = (
                getattr(side, "batch_rk_steps" if scheme else "batch_gd_steps") for side in (cpu, specialized)
            )
            every = [_batch(kernel, shape, params, target, scheme) for kernel in (general, made(shape, dtype))]
            for whole, own in zip(*every, strict=True):
                np.testing.assert_array_equal(own, whole)
        made_for += 1
    print(f"{made_for} shapes: the same bits")


@pytest.mark.evidence
@pytest.mark.parametrize("bits", ["128", "256", "512"])
def test_bits_at_other_vector_widths(bits):
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "bits or divergence"]
    environment = {**os.environ, "LRBIAS_VECTOR_BITS": bits}
    answer = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
