"""The same training steps by others, each written as its users would write it. `table.py` measures them.

Every function returns an action without arguments that makes `steps` steps; the first call compiles.
"""

import contextlib
import os

import numpy as np

import lrbias as lb
from lrbias.steppers import _specialized as specialized
from lrbias.steppers import batch_steps, steps_of
from lrcore import cpu, layout
from lrcore.cpu import workspace

DEPTH, LR = 3, 1e-5
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@contextlib.contextmanager
def _long_runs():
    """Within it, kernels for the widths of a network are earned at once: what is measured are steps of a long run."""
    before = specialized.COMPILE_SECONDS, specialized.LOAD_SECONDS
    specialized.COMPILE_SECONDS = specialized.LOAD_SECONDS = 0.0
    try:
        yield
    finally:
        specialized.COMPILE_SECONDS, specialized.LOAD_SECONDS = before


def problem(n, dtype=np.float64, depth=DEPTH):
    """Layers W_1 … W_N of norm about 1/2 and a target, n × n."""
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(n, n)) * 0.5 / np.sqrt(n)).astype(dtype) for _ in range(depth)]
    return layers, rng.normal(size=(n, n)).astype(dtype)


def ours(n, steps, method=None, dtype=np.float64, depth=DEPTH, threads=1):
    """By the kernel, as lrbias.train calls it. method: lb.GD or lb.GradientFlow."""
    layers, target = problem(n, dtype, depth)
    params, widths = layout.flatten(layers, dtype)
    params = layout.aligned_copy(params, dtype)
    losses = np.empty(steps, dtype)
    with _long_runs():
        advance = steps_of(method or lb.GD(lr=LR), lb.Factorization(target), widths, dtype, threads)
    return lambda: advance(params, losses)


def ours_general(n, steps):
    """By the kernel for all widths, whatever they are."""
    layers, target = problem(n)
    params, widths = layout.flatten(layers)
    params = layout.aligned_copy(params, params.dtype)
    losses = np.empty(steps)
    work = workspace.allocate(widths)
    return lambda: cpu.gd_steps(params, widths, target, LR, losses, work)


def ours_rk4(n, steps):
    """RK4 steps of the flow by the kernel."""
    return ours(n, steps, lb.GradientFlow(dt=LR))


def with_numpy(n, steps):
    """A loop in Python, gradients by hand."""
    layers, target = problem(n)

    def run():
        for _ in range(steps):
            loss, slopes = numpy_gradients(layers, target)
            for layer, slope in zip(layers, slopes, strict=True):
                layer -= LR * slope
        return loss

    return run


def numpy_gradients(layers, target):
    """(loss, gradients), W_1 first. The products are those of backpropagation; also right for PyTorch tensors."""
    prefixes = [layers[0]]
    for layer in layers[1:]:
        prefixes.append(layer @ prefixes[-1])
    back = prefixes[-1] - target
    loss = 0.5 * (back**2).sum()
    slopes = []
    for i in range(len(layers) - 1, 0, -1):
        slopes.append(back @ prefixes[i - 1].T)
        back = layers[i].T @ back
    return loss, [back, *reversed(slopes)]


def _torch():
    import torch

    torch.set_num_threads(1)
    return torch


def with_torch(n, steps):
    """Eager PyTorch, autograd, SGD without momentum written out."""
    torch = _torch()
    layers, target = problem(n)
    layers = [torch.tensor(layer, requires_grad=True) for layer in layers]
    target = torch.tensor(target)

    def run():
        for _ in range(steps):
            product = layers[0]
            for layer in layers[1:]:
                product = layer @ product
            (0.5 * ((product - target) ** 2).sum()).backward()
            with torch.no_grad():
                for layer in layers:
                    layer -= LR * layer.grad
                    layer.grad = None

    return run


def with_torch_compiled(n, steps):
    """A step with gradients by hand through torch.compile, which needs a C++ compiler."""
    torch = _torch()
    layers, target = problem(n)
    layers = [torch.tensor(layer) for layer in layers]
    target = torch.tensor(target)

    @torch.compile
    def step(layers, target):
        loss, slopes = numpy_gradients(layers, target)
        return loss, [layer - LR * slope for layer, slope in zip(layers, slopes, strict=True)]

    def run():
        now = layers
        for _ in range(steps):
            _, now = step(now, target)

    return run


def _jax():
    os.environ["XLA_FLAGS"] = ONE_THREAD
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def _jax_loss(layers, target):
    product = layers[0]
    for layer in layers[1:]:
        product = layer @ product
    return 0.5 * ((product - target) ** 2).sum()


def with_jax(n, steps):
    """JAX in float64: value and gradient, a jitted `lax.scan` over the steps."""
    jax = _jax()
    layers, target = problem(n)

    def step(layers, _):
        value, slopes = jax.value_and_grad(_jax_loss)(layers, target)
        return [layer - LR * slope for layer, slope in zip(layers, slopes, strict=True)], value

    run = jax.jit(lambda layers: jax.lax.scan(step, layers, None, length=steps))
    start = [jax.numpy.asarray(layer) for layer in layers]
    return lambda: jax.block_until_ready(run(start))


# Many runs of one size side by side; times are divided by their number.


def ours_batched(n, steps, runs):
    """The batched kernel: a vector holds one number of each of several runs."""
    layers, target = problem(n)
    params, widths = layout.flatten(layers)
    lanes = layout.lanes(np.float64)
    batch = layout.to_lanes(np.tile(params, (runs, 1)), lanes)
    targets = layout.to_lanes(np.tile(target.ravel(), (runs, 1)), lanes)
    losses = np.empty((len(batch), steps, lanes))
    statuses = np.empty((len(batch), lanes), np.int64)
    with _long_runs():
        advance = batch_steps([lb.GD(lr=LR)] * runs, targets, widths, np.dtype(np.float64))
    return lambda: advance(batch, losses, statuses)


def torch_batched(n, steps, runs):
    """torch.bmm, gradients by hand, updates by baddbmm_."""
    torch = _torch()
    layers, target = problem(n)
    layers = [torch.tensor(layer).repeat(runs, 1, 1) for layer in layers]
    target = torch.tensor(target).repeat(runs, 1, 1)

    def run():
        for _ in range(steps):
            prefixes = [layers[0]]
            for layer in layers[1:]:
                prefixes.append(torch.bmm(layer, prefixes[-1]))
            back = prefixes[-1] - target
            (back**2).sum(dim=(1, 2))
            for i in range(DEPTH - 1, 0, -1):
                below = torch.bmm(layers[i].transpose(1, 2), back)
                layers[i].baddbmm_(back, prefixes[i - 1].transpose(1, 2), alpha=-LR)
                back = below
            layers[0].sub_(back, alpha=LR)

    return run


def jax_batched(n, steps, runs):
    """JAX: `vmap` over the runs of a jitted `scan`."""
    jax = _jax()
    layers, target = problem(n)

    def step(layers, _):
        value, slopes = jax.value_and_grad(_jax_loss)(layers, target)
        return [layer - LR * slope for layer, slope in zip(layers, slopes, strict=True)], value

    run = jax.jit(jax.vmap(lambda layers: jax.lax.scan(step, layers, None, length=steps)))
    start = [jax.numpy.tile(layer, (runs, 1, 1)) for layer in layers]
    return lambda: jax.block_until_ready(run(start))


# The gradient flow with a fixed step of a four-stage method.


def flow_numpy(n, steps):
    """RK4 by hand in NumPy."""
    layers, target = problem(n)

    def slope(layers):
        return [-g for g in numpy_gradients(layers, target)[1]]

    def run():
        now = layers
        for _ in range(steps):
            now = _rk4(now, slope)

    return run


def _rk4(layers, slope):
    def moved(slopes, h):
        return [layer + h * s for layer, s in zip(layers, slopes, strict=True)]

    k1 = slope(layers)
    k2 = slope(moved(k1, LR / 2))
    k3 = slope(moved(k2, LR / 2))
    k4 = slope(moved(k3, LR))
    return [layer + LR / 6 * (a + 2 * b + 2 * c + d) for layer, a, b, c, d in zip(layers, k1, k2, k3, k4, strict=True)]


def flow_scipy(n, steps):
    """scipy.integrate.solve_ivp, RK45 whose step is held at `LR`: six gradients a step."""
    from scipy.integrate import solve_ivp

    layers, target = problem(n)
    shapes = [layer.shape for layer in layers]
    start = np.concatenate([layer.ravel() for layer in layers])

    def slope(t, flat):
        parts = np.split(flat, len(shapes))
        now = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        return -np.concatenate([g.ravel() for g in numpy_gradients(now, target)[1]])

    held = {"first_step": LR, "max_step": LR, "rtol": 1e3, "atol": 1e3}
    return lambda: solve_ivp(slope, (0, steps * LR), start, method="RK45", **held)


def flow_jax(n, steps):
    """RK4 by hand in JAX, jitted `scan`."""
    jax = _jax()
    layers, target = problem(n)

    def slope(layers):
        return [-g for g in jax.grad(_jax_loss)(layers, target)]

    run = jax.jit(lambda layers: jax.lax.scan(lambda y, _: (_rk4(y, slope), None), layers, None, length=steps))
    start = [jax.numpy.asarray(layer) for layer in layers]
    return lambda: jax.block_until_ready(run(start))


def flow_diffrax(n, steps):
    """diffrax with the tableau of RK4 and a constant step."""
    jax = _jax()
    import diffrax

    thirds = np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6])
    lower = (np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0]))

    class RK4(diffrax.AbstractERK):
        tableau = diffrax.ButcherTableau(c=np.array([0.5, 0.5, 1.0]), b_sol=thirds, b_error=np.zeros(4), a_lower=lower)
        interpolation_cls = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

        def order(self, terms):
            return 4

    layers, target = problem(n)
    term = diffrax.ODETerm(lambda t, layers, _: [-g for g in jax.grad(_jax_loss)(layers, target)])
    once = {"saveat": diffrax.SaveAt(t1=True), "max_steps": steps + 1, "adjoint": diffrax.DirectAdjoint()}
    once["stepsize_controller"] = diffrax.StepTo(jax.numpy.arange(steps + 1) * LR)
    run = jax.jit(lambda layers: diffrax.diffeqsolve(term, RK4(), 0.0, steps * LR, None, layers, **once).ys)
    start = [jax.numpy.asarray(layer) for layer in layers]
    return lambda: jax.block_until_ready(run(start))


def flow_torchdiffeq(n, steps):
    """torchdiffeq's rk4 (the 3/8 rule) with a constant step, gradients by hand."""
    torch = _torch()
    from torchdiffeq import odeint

    layers, target = problem(n)
    start = tuple(torch.tensor(layer) for layer in layers)
    target = torch.tensor(target)
    times = torch.tensor([0.0, steps * LR], dtype=torch.float64)

    def slope(t, layers):
        return tuple(-g for g in numpy_gradients(list(layers), target)[1])

    def run():
        with torch.no_grad():
            odeint(slope, start, times, method="rk4", options={"step_size": LR})

    return run
