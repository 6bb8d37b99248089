"""Where the parts of a network's memory lie: all numbers of a run are in one flat array, on chip or not.

    params │ target │ prefix │ residual │ back, back │ columns │ point │ stages

Undecorated: the host plans memory with it, and kernels find their way by it.
"""

from typing import NamedTuple


class Offsets(NamedTuple):
    """Offsets in numbers; the parts are those of a Workspace of the CPU. `size` is where the last one ends."""

    parameters: int
    target: int
    prefix: int
    residual: int
    back: int
    back_turn: int
    columns: int
    point: int
    stages: int
    size: int


def offsets_of(widths, stages):
    """The Offsets of a network of `widths`; `stages` is the number of Runge-Kutta stages, 0 for none."""
    depth = widths.size - 1
    inputs = widths[0]
    outputs = widths[widths.size - 1]
    parameters = widths[1] * inputs
    prefixes = 0
    inner = 0
    for i in range(1, depth):
        parameters += widths[i + 1] * widths[i]
        inner = max(inner, widths[i])
        if i > 1:
            prefixes += widths[i]
    target = parameters
    prefix = target + outputs * inputs
    residual = prefix + prefixes * inputs
    back = residual + outputs * inputs
    columns = back + 2 * inner * inputs
    point = columns + max(inputs, inner)
    if stages == 0:
        return Offsets(parameters, target, prefix, residual, back, inner * inputs, columns, point, point, point)
    first = point + parameters
    size = first + stages * parameters
    return Offsets(parameters, target, prefix, residual, back, inner * inputs, columns, point, first, size)
