"""Small runs for the tests of the bindings."""

import hashlib
import warnings

import numpy as np
import pytest

import lrbias as lb
from lrbias.cli import _app as cli
from lrbias.runs._tracked import ModelRun


def settings(steps=200, **changes):
    """Arguments of lb.train for a run that learns two values: 6 × 5, rank 2, depth 2, mixed intervals."""
    arguments = {
        "problem": lb.Factorization(lb.from_singular_values((6, 5), [3.0, 1.5], seed=3)),
        "network": lb.Network.gaussian((5, 7, 6), gamma=1.0, seed=2),
        "method": lb.GD(lr=0.02),
        "steps": steps,
        "record": lb.Record(metrics={"singular_values": 1, "effective_rank": 7, "alignment": 20, "gradient_norm": 50}),
        "checkpoint_every": 50,
        "forecast": False,
    }
    return {**arguments, **changes}


def fingerprint(run):
    """A hash of everything recorded and of what the next step depends on: the parameters, and of a model the rest."""
    model = isinstance(run, ModelRun)
    last = run.checkpoint_arrays(run.step) if model else {"params": run.network.params}
    digest = hashlib.sha256()
    for name in sorted(last):
        digest.update(np.ascontiguousarray(last[name]).tobytes())
    for name in sorted(run.names):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(run[name]).tobytes())
    return digest.hexdigest()


def quiet_train(**arguments):
    """lb.train with warnings as errors, as the tests have them, also in processes of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return lb.train(**arguments)


def call(capsys, words):
    """(exit code, stdout, stderr) of one command."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    shown = capsys.readouterr()
    return ended.value.code or 0, shown.out, shown.err
