"""The network of a run at any step, also where there is no checkpoint."""

from typing import Any

import numpy as np

from lrbias.errors import check
from lrbias.network import Network
from lrbias.settings import NonNegativeInt, validate
from lrbias.steppers import Execution, make_stepper, replay
from lrbias.storage import RunSource
from lrbias.system import one_blas_thread


def network_at(run: Any, source: RunSource, step: int) -> Network:
    """The Network after `step` steps: trained again from the checkpoint before, so with the bits that the run had."""
    step = validate(NonNegativeInt, "step", step)
    check(step <= run.step, "step", step, f"at most {run.step}, the step that the run has reached")
    at = max(known for known in run.checkpoints if known <= step)
    if at == step:
        return run.checkpoint(step)
    with one_blas_thread(), np.errstate(all="ignore"):
        arrays = source.checkpoint_arrays(at)
        execution = Execution(compress="auto" if run.reduced else "off")
        stepper = make_stepper(run.method, run.problem, run.checkpoint(0 if run.reduced else at), execution)
        stepper.restore(arrays["params"], arrays)
        replay(stepper, at, step)
    return Network(stepper.params, run.widths, output_scale=run.problem.output_scale)
