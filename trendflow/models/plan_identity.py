"""What a TensorRT plan was built for. Its kernels were chosen on one kind of GPU and are wrong or slow on any other."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints

from trendflow.contracts.canonical import digest_of
from trendflow.models.device import DeviceFacts
from trendflow.models.sources import Frozen, Version


class PlanIdentity(Frozen):
    """GPU, compute capability, driver and TensorRT version of the build; a plan runs where all four are the same.

    The versions are strings of numbers: in YAML they need quotes.
    """

    gpu: str = Field(min_length=1)
    compute_capability: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")]
    driver: Version
    tensorrt: Version

    @classmethod
    def of(cls, facts: DeviceFacts, tensorrt: str) -> Self:
        """That of a plan built on a device with these facts."""
        return cls(gpu=facts.gpu, compute_capability=facts.compute_capability, driver=facts.driver, tensorrt=tensorrt)

    @property
    def tag(self) -> str:
        """What the name of an entry ends with. The name enters `model_signature`, so the four enter it too."""
        return f"sm{self.compute_capability.replace('.', '')}_{digest_of(self.model_dump())[:8]}"

    def __str__(self) -> str:
        return (
            f"{self.gpu} (compute capability {self.compute_capability}), driver {self.driver}, TensorRT {self.tensorrt}"
        )
