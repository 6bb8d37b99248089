"""From what a run is to the stepper that makes it, and the network of any step from a checkpoint before."""

import numpy as np

from lrbias.methods import Method
from lrbias.network import Network
from lrbias.problems import Problem
from lrbias.steppers._chunks import Chunks
from lrbias.steppers._reduction import exact_reduction
from lrbias.steppers._stepper import DEFAULT, Execution, Stepper, stepper_of
from lrcore import layout
from lrcore.status import DIVERGED


def make_stepper(method: Method, problem: Problem, network: Network, execution: Execution = DEFAULT) -> Stepper:
    """The Stepper of a run from `network`, which stays as it is."""
    own = Network(layout.aligned_copy(network.params, network.dtype), network.widths, output_scale=network.output_scale)
    short = None
    if execution.compress == "auto":
        short = exact_reduction(method, problem, own, execution.device)
    return short or stepper_of(method, problem, own, execution)


def replay(stepper: Stepper, first: int, last: int) -> None:
    """Steps `first` … `last` − 1 again, of which nothing is recorded."""
    chunks = Chunks(stepper)
    step = first
    while step < last:
        losses = np.empty(chunks.length(step, last), stepper.params.dtype)
        code, made = chunks.make(losses, step)
        if code == DIVERGED:
            break
        step += len(made)
        if len(made):
            stepper.ends_stage(step)
    stepper.expand()
