"""Training of the linearised network, by the tangent kernel K of its start: W ← W − η K(∂L/∂W)."""

import numpy as np

from lrbias.devices import CPU
from lrbias.errors import require
from lrbias.methods import Linearized
from lrbias.steppers._stepper import Trainer, trainer_of
from lrcore import cpu, layout
from lrcore.cpu import workspace


class Tangent(Trainer):
    """`output` (n_N·n_0,) is trained in place; the kernel is that of the network given to `begin`.

    A checkpoint holds that network, from which the factors of the kernel are made again with the same bits.
    """

    def __init__(self, problem, output, method):
        self._output = output
        self._method = method
        self._goal = problem.objective(output.dtype)
        self._origin = {}

    def begin(self, network):
        self._take({"origin_params": network.params, "origin_widths": network.widths, "origin_scale": network.scale})

    def _take(self, origin):
        self._origin = {name: np.asarray(value) for name, value in origin.items()}
        params = self._origin["origin_params"]
        dtype = self._output.dtype
        self._widths = layout.as_widths(self._origin["origin_widths"])
        depth = len(self._widths) - 1
        sides = (self._widths[-1], self._widths[0])
        self._left, self._right = (np.empty((depth, n, n), dtype) for n in sides)
        self._work = workspace.allocate_ntk(self._widths, dtype)
        cpu.ntk_factors(params, self._widths, self._left, self._right, self._work)
        self._left *= dtype.type(self._origin["origin_scale"] ** 2)

    def advance(self, losses, step):
        rates = self._method.rates(step, losses.size).astype(losses.dtype)
        factors = self._left, self._right
        return cpu.tangent_gd_steps(self._output, factors, self._goal, rates, losses, self._work)

    def state(self):
        return self._origin

    def restore(self, params, state):
        self._output[:] = params
        self._take(state)


@trainer_of.register
def _(method: Linearized, problem, widths, params, threads=1, device=CPU):
    require(not device.apart, "device", device.name, "cpu for a linearised network")
    return Tangent(problem, params, method)
