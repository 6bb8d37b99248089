"""The steps of every training kernel on whole layers, written once for all machines (`lrcore.cuda.machines`).

They are those of `lrcore.cpu.step` and `lrcore.cpu.objective`, operation by operation. `losses[at]`,
`losses[at + stride]`, … take the losses; a run ends at the first that is not finite, and its state tells DIVERGED. The
parameters begin at 0.
"""

from typing import Any, NamedTuple

from lrcore.cuda.block import in_memory, on_chip
from lrcore.cuda.gemm import NEGATE, UPDATE
from lrcore.cuda.grid import on_grid
from lrcore.cuda.passes import ADD, COPY, SCALE


class Programs(NamedTuple):
    """The steps of a machine. All take memory, state, widths and places first, and then what is listed."""

    loss: Any  # (…, losses, at), after `forward`: of a whole target
    weigh: Any  # (…, goal, ridge, point, losses, at): of an Objective, leaves ∂L/∂W; with at < 0 no loss is made
    gd: Any  # (…, lr, losses, at, stride, count)
    rk: Any  # (…, dt, a, b, losses, at, stride, count)
    objective_gd: Any  # (…, goal, rates, ridges, losses, count)
    objective_rk: Any  # (…, goal, ridge, dt, a, b, losses, count)
    slope: Any  # (…, ridge, point, out), after `weigh`: −∇L − 2λ point
    stage_point: Any  # (memory, state, places, dt, a, stages, s, origin): where stage s is evaluated; a: flat rows


def programs(machine):
    """The Programs of a machine."""
    compiled, times, stopped, forward, backward, combine = machine[:6]
    square, compare, project, differ, respond, regress, total, settle = machine[6:]

    @compiled
    def loss(memory, state, widths, places, losses, at):
        square(memory, state, widths[widths.size - 1], widths[0], places.residual, places.columns)
        total(memory, state, widths[0], places.columns, losses, at)

    @compiled
    def weigh(memory, state, widths, places, goal, ridge, point, losses, at):
        outputs = widths[widths.size - 1]
        inputs = widths[0]
        count = goal.measurements
        residual = places.residual
        columns = places.columns
        size = outputs * inputs
        forward(memory, state, widths, places, point, False)
        if count > 0:
            project(memory, state, goal.matrices, 0, count, size, residual, goal, 0)
            differ(memory, state, goal, size, residual)
            respond(memory, state, goal, size, residual)
        elif goal.inputs > 0:
            regress(memory, state, goal, size, residual)
            inputs = size
            columns = residual
        else:
            compare(memory, state, goal.weights, goal.target, outputs, inputs, residual, columns)
        if at >= 0:
            if goal.inputs > 0:
                project(memory, state, goal.scratch, 2 * goal.parts, 1, size, residual, goal, goal.parts)
            if ridge != 0:
                project(memory, state, memory, point, 1, places.parameters, point, goal, count * (goal.parts + 2))
            settle(memory, state, inputs, columns, goal, ridge, places.parameters, point, losses, at)

    @compiled
    def stage_point(memory, state, places, dt, a, stages, s, origin):
        """What begins at `origin` + dt Σ_{j<s} a_sj stage_j, j ascending, each term rounded once."""
        base = origin
        for j in range(s):
            factor = a[s * stages + j]
            if factor != 0:
                stage = places.stages + j * places.parameters
                combine(memory, state, ADD, places.parameters, dt * factor, stage, base, places.point)
                base = places.point
        if base == origin:
            combine(memory, state, COPY, places.parameters, dt, origin, 0, places.point)

    @compiled
    def add_stages(memory, state, places, dt, b):
        for s in range(b.size):
            stage = places.stages + s * places.parameters
            combine(memory, state, ADD, places.parameters, dt * b[s], stage, 0, 0)

    @compiled
    def gd(memory, state, widths, places, lr, losses, at, stride, count):
        for k in range(count):
            forward(memory, state, widths, places, 0, True)
            loss(memory, state, widths, places, losses, at + k * stride)
            if stopped(state):
                break
            backward(memory, state, widths, places, UPDATE, -lr, 0, 0)

    @compiled
    def rk(memory, state, widths, places, dt, a, b, losses, at, stride, count):
        one = memory.dtype.type(1)
        for k in range(count):
            for s in range(b.size):
                point = 0
                if s > 0:
                    stage_point(memory, state, places, dt, a, b.size, s, 0)
                    point = places.point
                forward(memory, state, widths, places, point, True)
                if s == 0:
                    loss(memory, state, widths, places, losses, at + k * stride)
                    if stopped(state):
                        return
                backward(memory, state, widths, places, NEGATE, -one, point, places.stages + s * places.parameters)
            add_stages(memory, state, places, dt, b)

    @compiled
    def objective_gd(memory, state, widths, places, goal, rates, ridges, losses, count):
        one, two = memory.dtype.type(1), memory.dtype.type(2)
        for k in range(count):
            weigh(memory, state, widths, places, goal, ridges[k], 0, losses, k)
            if stopped(state):
                break
            decay = one - times(two * rates[k], ridges[k])
            backward(memory, state, widths, places, UPDATE, -(rates[k] / decay), 0, 0)
            if decay != one:
                combine(memory, state, SCALE, places.parameters, decay, 0, 0, 0)

    @compiled
    def slope(memory, state, widths, places, ridge, point, out):
        one, two = memory.dtype.type(1), memory.dtype.type(2)
        backward(memory, state, widths, places, NEGATE, -one, point, out)
        combine(memory, state, ADD, places.parameters, -(two * ridge), point, out, out)

    @compiled
    def objective_rk(memory, state, widths, places, goal, ridge, dt, a, b, losses, count):
        for k in range(count):
            for s in range(b.size):
                point = 0
                at = k
                if s > 0:
                    stage_point(memory, state, places, dt, a, b.size, s, 0)
                    point = places.point
                    at = -1
                weigh(memory, state, widths, places, goal, ridge, point, losses, at)
                if stopped(state):
                    return
                slope(memory, state, widths, places, ridge, point, places.stages + s * places.parameters)
            add_stages(memory, state, places, dt, b)

    return Programs(loss, weigh, gd, rk, objective_gd, objective_rk, slope, stage_point)


on_chip, in_memory, on_grid = programs(on_chip), programs(in_memory), programs(on_grid)
