"""The steps of every training kernel on whole layers, written once for all executors (`lrcore.cuda.executors`).

They are those of `lrcore.cpu.step` and `lrcore.cpu.objective`, operation by operation. `losses[at]`,
`losses[at + stride]`, … take the losses; a run ends at the first that is not finite, and its state tells DIVERGED. The
parameters begin at 0.
"""

from typing import Any, NamedTuple

from lrcore.cuda.block import IN_MEMORY, ON_CHIP
from lrcore.cuda.gemm import NEGATE, UPDATE
from lrcore.cuda.grid import ON_GRID
from lrcore.cuda.passes import ADD, COPY, SCALE, Dots, Vector


class Steps(NamedTuple):
    """The steps of an executor. All take a `chain.Network` first, and then what is listed."""

    stage_point: Any  # (…, dt, a, stages, s, origin): where stage s is evaluated; a: flat rows
    loss: Any  # (…, losses, at), after `forward`: of a whole target
    gd: Any  # (…, lr, losses, at, stride, count)
    rk: Any  # (…, dt, a, b, losses, at, stride, count)
    objective_loss: Any  # (…, objective, ridge, point, losses, at), leaves ∂L/∂W; with at < 0 no loss is made
    vector_field: Any  # (…, ridge, point, out), after `objective_loss`: −∇L − 2λ point
    objective_gd: Any  # (…, objective, rates, ridges, losses, count)
    objective_rk: Any  # (…, objective, ridge, dt, a, b, losses, count)


def make_steps(executor):
    """The Steps of an executor."""
    stage_point, add_stages = _stages(executor)
    whole_target = _whole_target(executor, stage_point, add_stages)
    return Steps(stage_point, *whole_target, *_objective(executor, stage_point, add_stages))


def _stages(executor):
    """Sums of the stages of a Runge-Kutta method: those of one stage's point, and those of a step."""
    combine = executor.combine

    @executor.jit
    def stage_point(net, dt, a, stages, s, origin):
        """What begins at `origin` + dt Σ_{j<s} a_sj stage_j, j ascending, each term rounded once."""
        offsets = net.offsets
        size = offsets.parameters
        base = origin
        for j in range(s):
            factor = a[s * stages + j]
            if factor != 0:
                stage = offsets.stages + j * size
                combine(net.memory, net.state, ADD, size, dt * factor, stage, base, offsets.point)
                base = offsets.point
        if base == origin:
            combine(net.memory, net.state, COPY, size, dt, origin, 0, offsets.point)

    @executor.jit
    def add_stages(net, dt, b):
        size = net.offsets.parameters
        for s in range(b.size):
            combine(net.memory, net.state, ADD, size, dt * b[s], net.offsets.stages + s * size, 0, 0)

    return stage_point, add_stages


def _whole_target(executor, stage_point, add_stages):
    """loss, gd and rk on a whole target, which lies in the memory."""
    stopped = executor.stopped
    forward = executor.forward
    backward = executor.backward
    column_squares = executor.column_squares
    target_loss = executor.target_loss

    @executor.jit
    def loss(net, losses, at):
        offsets = net.offsets
        inputs = net.widths[0]
        outputs = net.widths[net.widths.size - 1]
        column_squares(net.memory, net.state, outputs, inputs, offsets.residual, offsets.columns)
        target_loss(net.memory, net.state, Vector(offsets.columns, inputs), losses, at)

    @executor.jit
    def gd(net, lr, losses, at, stride, count):
        for k in range(count):
            forward(net, 0, True)
            loss(net, losses, at + k * stride)
            if stopped(net.state):
                break
            backward(net, UPDATE, -lr, 0, 0)

    @executor.jit
    def rk(net, dt, a, b, losses, at, stride, count):
        one = net.memory.dtype.type(1)
        offsets = net.offsets
        for k in range(count):
            for s in range(b.size):
                point = 0
                if s > 0:
                    stage_point(net, dt, a, b.size, s, 0)
                    point = offsets.point
                forward(net, point, True)
                if s == 0:
                    loss(net, losses, at + k * stride)
                    if stopped(net.state):
                        return
                backward(net, NEGATE, -one, point, offsets.stages + s * offsets.parameters)
            add_stages(net, dt, b)

    return loss, gd, rk


def _objective(executor, stage_point, add_stages):
    """objective_loss, vector_field, objective_gd and objective_rk."""
    backward = executor.backward
    combine = executor.combine
    mul_rn = executor.mul_rn
    stopped = executor.stopped
    objective_loss = _objective_loss(executor)

    @executor.jit
    def vector_field(net, ridge, point, out):
        one = net.memory.dtype.type(1)
        two = net.memory.dtype.type(2)
        backward(net, NEGATE, -one, point, out)
        combine(net.memory, net.state, ADD, net.offsets.parameters, -(two * ridge), point, out, out)

    @executor.jit
    def objective_gd(net, objective, rates, ridges, losses, count):
        one = net.memory.dtype.type(1)
        two = net.memory.dtype.type(2)
        for k in range(count):
            objective_loss(net, objective, ridges[k], 0, losses, k)
            if stopped(net.state):
                break
            decay = one - mul_rn(two * rates[k], ridges[k])
            backward(net, UPDATE, -(rates[k] / decay), 0, 0)
            if decay != one:
                combine(net.memory, net.state, SCALE, net.offsets.parameters, decay, 0, 0, 0)

    @executor.jit
    def objective_rk(net, objective, ridge, dt, a, b, losses, count):
        offsets = net.offsets
        for k in range(count):
            for s in range(b.size):
                point = 0
                at = k
                if s > 0:
                    stage_point(net, dt, a, b.size, s, 0)
                    point = offsets.point
                    at = -1
                objective_loss(net, objective, ridge, point, losses, at)
                if stopped(net.state):
                    return
                vector_field(net, ridge, point, offsets.stages + s * offsets.parameters)
            add_stages(net, dt, b)

    return objective_loss, vector_field, objective_gd, objective_rk


def _objective_loss(executor):
    forward = executor.forward
    partial_dots = executor.partial_dots
    reduce_loss = executor.objective_loss
    grad_product = _grad_product(executor)

    @executor.jit
    def objective_loss(net, objective, ridge, point, losses, at):
        memory = net.memory
        state = net.state
        scratch = objective.scratch
        partials = objective.num_partials
        size = net.widths[net.widths.size - 1] * net.widths[0]
        residual = net.offsets.residual
        parameters = net.offsets.parameters
        sums = Vector(net.offsets.columns, net.widths[0])
        forward(net, point, False)
        grad_product(net, objective, size)
        if at >= 0:
            if objective.inputs > 0:
                sums = Vector(residual, size)
                dots = Dots(2 * partials, 1, size, residual, partials, partials)
                partial_dots(memory, state, scratch, dots, scratch)
            if ridge != 0:
                start = objective.measurements * (partials + 2)
                dots = Dots(point, 1, parameters, point, partials, start)
                partial_dots(memory, state, memory, dots, scratch)
            reduce_loss(memory, state, sums, objective, ridge, Vector(point, parameters), losses, at)

    return objective_loss


def _grad_product(executor):
    partial_dots = executor.partial_dots
    measurement_residuals = executor.measurement_residuals
    apply_adjoint = executor.apply_adjoint
    apply_covariance = executor.apply_covariance
    entry_residuals = executor.entry_residuals

    @executor.jit
    def grad_product(net, objective, size):
        """The product W at `residual` becomes ∂L/∂W."""
        memory = net.memory
        state = net.state
        residual = net.offsets.residual
        partials = objective.num_partials
        count = objective.measurements
        if count > 0:
            dots = Dots(0, count, size, residual, partials, 0)
            partial_dots(memory, state, objective.matrices, dots, objective.scratch)
            measurement_residuals(memory, state, objective, size, residual)
            apply_adjoint(memory, state, objective, size, residual)
        elif objective.inputs > 0:
            apply_covariance(memory, state, objective, size, residual)
        else:
            inputs = net.widths[0]
            rows = size // inputs
            columns = net.offsets.columns
            entry_residuals(memory, state, objective.weights, objective.target, rows, inputs, residual, columns)

    return grad_product


CHIP_STEPS = make_steps(ON_CHIP)
MEMORY_STEPS = make_steps(IN_MEMORY)
GRID_STEPS = make_steps(ON_GRID)
