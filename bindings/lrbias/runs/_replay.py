"""The network of a run at any step, also where there is no checkpoint."""

import numpy as np

from lrbias.errors import require
from lrbias.network import Network
from lrbias.settings import Whole, validate
from lrbias.steppers import reduce, trainer_of
from lrbias.system import one_blas_thread
from lrcore import layout

CALL = 1000  # steps of one kernel call


def network_at(run, source, step):
    """The Network after `step` steps: trained again from the checkpoint before, so with the bits that the run had."""
    step = validate(Whole, "step", step)
    require(step <= run.step, "step", step, f"at most {run.step}, the step that the run has reached")
    at = max(known for known in run.checkpoints if known <= step)
    problem = run.problem
    if at == step:
        return run.checkpoint(step)
    with one_blas_thread(), np.errstate(all="ignore"):
        arrays = source.checkpoint_arrays(at)
        params = layout.aligned_copy(arrays["params"], arrays["params"].dtype)
        short = reduce(problem, run.checkpoint(0), run.method) if run.reduced else None
        trainer = short or trainer_of(run.method, problem, run.widths, params)
        trainer.restore(params, arrays)
        while at < step:
            count = min(step - at, CALL, trainer.most(at))
            trainer.advance(np.empty(count, params.dtype), at)
            at += count
            trainer.look(at)
        trainer.expand(params)
    return Network(params, run.widths, scale=problem.output_scale)
