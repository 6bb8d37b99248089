"""How a run is made, whatever is trained."""

from pydantic import Field, model_validator

from lrbias.devices import DeviceName, check_threads
from lrbias.settings import Compress, Count, Settings, Threads


class RunOptions(Settings):
    """How a run is made."""

    steps: Count = Field(
        default=50_000, description="number of iterations; of glrl at most so many, by default as many as it takes"
    )
    checkpoint_every: Count = Field(default=1000, description="iterations between checkpoints")
    threads: Threads = Field(
        default=1, description="threads that share the products of a step; pays from about n = 200 on"
    )
    device: DeviceName = Field(
        default="cpu",
        description="cpu, cuda (an NVIDIA GPU, extra `cuda`) or auto: a GPU where one can be used, else the CPU; same "
        "bits on each",
    )
    compress: Compress = Field(
        default="auto",
        description="auto: train fewer numbers where target and start allow it exactly; off: always whole layers",
    )

    @model_validator(mode="after")
    def _check_device(self) -> "RunOptions":
        check_threads(self.device, self.threads)
        return self
