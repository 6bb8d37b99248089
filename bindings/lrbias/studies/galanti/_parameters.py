"""Ranks of real networks under SGD with weight decay (Galanti, Siegel, Gupte and Poggio), scaled to two CPU cores.

Matched: the loss (mean cross entropy + λ‖W‖_F², so that a step multiplies the weights by 1 − 2μλ), the rank of a layer
(#{σ_i > 1e-3 ‖W‖₂}, a convolution as the matrix c_out × c_in·k·k), its average over the weight matrices, what is varied
in which figure, the shapes of the networks, MLP-BN-10-100 in its own size, SGD without momentum except for Figure 7.

Not matched, for want of time on two cores: Fashion-MNIST instead of CIFAR-10, pooled to 14 × 14 pixels for all networks
with convolutions or attention, with 10 000 training images for these; a quarter of the channels (ResNet-18 and VGG-16
with 16 instead of 64) and thousands of steps instead of 500 epochs; no decay of the learning rate, no crops and flips.
μλ is larger than the paper's in return: what has to pass for old weights to be forgotten is 1/(2μλ) steps.

Ours: the values of B, μ and λ (the text at hand does not list the paper's); that all runs of a network make the same
number of steps. Equal epochs would give small batches more steps, and with them more forgetting; so the comparison
here is the harder one for the claim about B. The statistics and their verdicts are ours, too.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lrbias.errors import check_settable
from lrbias.settings import Accepts, Count
from lrbias.studies import Parameters
from lrbias.studies.galanti._scales import Scale, paper, small

KEYS = ("batch", "lr", "weight_decay")
PROBED = 8  # samples whose gradients' ranks are measured
Sizes = Annotated[Literal["small", "paper"] | Scale, Accepts("small or paper")]
Folder = Annotated[Path, Accepts("the path of a folder")]
Steps = Annotated[Count | None, Accepts("an integer of at least 1")]


class GalantiParameters(Parameters):
    seeds: Count = Field(3, description="of each setting")
    steps: Steps = Field(None, description="of ResNet-18, to which those of the others are in proportion")
    preset: Sizes = Field("small", description="small, or paper for the paper's sizes (days on a cluster)")
    folder: Folder | None = Field(None, description="where CIFAR-10 is, for the paper's sizes")

    @model_validator(mode="after")
    def _check(self):
        fits = self.folder is None or self.preset == "paper"
        check_settable(fits, "folder", str(self.folder), "only preset = 'paper' reads one")
        by_steps = self.steps is None or "steps" in self._usual().networks["resnet"]
        check_settable(by_steps, "steps", self.steps, "the runs of this preset go by epochs")
        return self

    def size(self):
        """The Scale."""
        usual = self._usual()
        return usual if self.steps is None else usual.stretched(self.steps)

    def _usual(self):
        if self.preset == "small":
            return small()
        return paper(self.folder) if self.preset == "paper" else self.preset
