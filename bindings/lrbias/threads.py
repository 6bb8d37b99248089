"""How many threads a run uses."""


def one_blas_thread():
    """A context in which BLAS has one thread: products of this size are slower with more, and their bits may differ."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")
