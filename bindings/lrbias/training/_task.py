"""What is trained and how."""

from typing import NamedTuple

from lrbias.experiments import Stop
from lrbias.methods import Method
from lrbias.metrics import Record
from lrbias.problems import Problem
from lrbias.steppers import Execution


class Task(NamedTuple):
    """What is trained and how."""

    problem: Problem
    method: Method
    record: Record
    stop: Stop
    execution: Execution
