"""The command that compiles kernels before they are needed: warmup."""

from lrbias.cli._console import Flag, Words, show


def warmup(*, methods: Words = None, dtypes: Words = None, json: Flag = False):
    """Compile the kernels of training and of every default metric, so that the first run need not.

    Parameters
    ----------
    methods
        Some of gd, flow, sgd and linearized; by default all of them. Greedy learning uses those of gd or flow.
    dtypes
        float64, float32 or both; by default float64.
    json
        Print the kernels and their seconds as JSON on stdout.
    """
    from lrbias.training import DTYPES, METHODS, warm_up

    compiled = warm_up(methods or tuple(METHODS), dtypes or DTYPES[:1])
    total = sum(seconds for _, seconds in compiled)
    lines = [f"{seconds:6.1f} s  {kernel}" for kernel, seconds in compiled]
    lines.append(f"{len(compiled)} kernels compiled in {total:.1f} s; what was compiled before is not among them")
    facts = {"kernels": [{"kernel": kernel, "seconds": seconds} for kernel, seconds in compiled], "seconds": total}
    show(facts, "\n".join(lines), json)
    return 0
