"""What makes the steps of a method on given arrays, and knows what a checkpoint needs."""

from lrbias.steppers._greedy import Greedy, Phase
from lrbias.steppers._linearized import Tangent
from lrbias.steppers._reduction import reduce
from lrbias.steppers._stepper import Adaptive, Trainer, Whole, trainer_of
from lrbias.steppers._steps import batch_steps, chain_steps, many_steps, steps_of
from lrbias.steppers._trajectories import Group

__all__ = [
    "Adaptive",
    "Greedy",
    "Group",
    "Phase",
    "Tangent",
    "Trainer",
    "Whole",
    "batch_steps",
    "chain_steps",
    "many_steps",
    "reduce",
    "steps_of",
    "trainer_of",
]
