"""What makes the steps of a method on given arrays, and knows what a checkpoint needs."""

from lrbias.settings import import_all
from lrbias.steppers._adaptive import AdaptiveStepper
from lrbias.steppers._batch import BatchStepper
from lrbias.steppers._chunks import Chunks, WholeChunks
from lrbias.steppers._ensemble import EnsembleStepper
from lrbias.steppers._greedy import GreedyStepper, Phase
from lrbias.steppers._linearized import LinearizedStepper
from lrbias.steppers._make import make_stepper, replay
from lrbias.steppers._reduction import exact_reduction
from lrbias.steppers._stepper import ENDLESS, Execution, LayerStepper, Stepper, stepper_of
from lrbias.steppers._steps import batch_steps, chain_steps, many_steps, steps_of

__all__ = [
    "ENDLESS",
    "AdaptiveStepper",
    "BatchStepper",
    "Chunks",
    "EnsembleStepper",
    "Execution",
    "GreedyStepper",
    "LayerStepper",
    "LinearizedStepper",
    "Phase",
    "Stepper",
    "WholeChunks",
    "batch_steps",
    "chain_steps",
    "exact_reduction",
    "make_stepper",
    "many_steps",
    "replay",
    "stepper_of",
    "steps_of",
]

import_all(__name__)  # a module of this room that no other imports registers its steppers, too
