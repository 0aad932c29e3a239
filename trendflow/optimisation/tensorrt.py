"""TensorRT plans: built on the GPU they will run on, never moved between devices."""

from __future__ import annotations

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry

_PROVIDER = "TensorrtExecutionProvider"


def require_builder(entry: CatalogueEntry) -> None:
    """Raises `device_unavailable` without a GPU that TensorRT can use, `dependency_missing` where there is one.

    A plan's identity holds GPU, driver and TensorRT version, so it is made where it is used; this release runs none.
    """
    import onnxruntime as ort

    if _PROVIDER not in ort.get_available_providers():
        raise TrendFlowError(
            "device_unavailable",
            f"A TensorRT plan of {entry.name} is built on the GPU that will run it, and this machine offers none.",
            device="cuda",
        )
    raise TrendFlowError(
        "dependency_missing",
        f"No runtime of this release executes a TensorRT plan, so none of {entry.name} is built.",
        kind="python_package",
    )
