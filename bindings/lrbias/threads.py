"""How many threads a run uses."""

import os
from concurrent.futures import ThreadPoolExecutor


def cores():
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def one_blas_thread():
    """A context in which BLAS has one thread: SVDs of this size are slower with more, and their bits may differ."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")


def together(kernel, works):
    """kernel(params, losses, step, work) in as many threads as there are workspaces: steps(params, losses, step).

    The kernels release the interpreter and wait for each other inside, so the threads really run side by side.
    """
    if len(works) == 1:
        return lambda params, losses, step=0: kernel(params, losses, step, works[0])
    pool = ThreadPoolExecutor(len(works) - 1, thread_name_prefix="lrbias")
    # Compiling is not safe to do in several threads at once where the interpreter is free to switch between them.
    state = {"compiled": False}

    def steps(params, losses, step=0):
        if not state["compiled"]:
            single = works[0]._replace(parts=1)
            kernel(params.copy(), losses[:0], step, single)
            state["compiled"] = True
        others = [pool.submit(kernel, params, losses, step, work) for work in works[1:]]
        status = kernel(params, losses, step, works[0])
        for other in others:
            other.result()
        return status

    return steps
