"""Which queue a run goes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.queue.fair_order import FairOrder
from trendflow.orchestration.queue.routing import Router

CUDA = {"device_policy": "cuda"}


def router(tmp_path: Path, *on_cuda: str) -> Router:
    """A router over the shipped graph, where these entries of the catalogue are meant for CUDA."""
    shipped = Catalogue.load()
    entries = {entry.name: entry.model_copy(update=CUDA if entry.name in on_cuda else {}) for entry in shipped}
    deployment = Deployment(Settings(home=tmp_path))
    vars(deployment)["catalogue"] = Catalogue(entries, shipped.roles)
    return Router(deployment)


def test_the_device_policy_of_the_models_decides(tmp_path: Path) -> None:
    assert router(tmp_path).device_queue("starter") == "cpu"
    on_cuda = router(tmp_path, "nanodet_m_416")
    assert on_cuda.device_queue("starter") == "gpu"
    assert on_cuda.device_queue("starter", {"core_object_detections", "segmenter"}) == "gpu"
    assert on_cuda.device_queue("starter", {"core_clip", "video_pacing"}) == "cpu"  # none of them detects objects
    assert on_cuda.device_queue("served") == "cpu"  # the model server has the GPU
    with pytest.raises(TrendFlowError) as refused:
        on_cuda.device_queue("unknown")
    assert refused.value.error_code == "config_invalid"


def served(waiting: dict[str, int]) -> list[str]:
    """The queues in the order in which a worker takes their messages, as the transport asks for them."""
    order = FairOrder()
    order.update(waiting)
    left, taken = dict(waiting), []
    while any(left.values()):
        queue = next(name for name in order.consume(len(waiting)) if left[name])
        order.rotate(queue)
        left[queue] -= 1
        taken.append(queue)
    return taken


def test_low_comes_last_but_at_least_every_tenth_time() -> None:
    assert served({"cpu.low": 1, "cpu.normal": 2, "cpu.high": 1}) == ["cpu.high", "cpu.normal", "cpu.normal", "cpu.low"]
    crowded = served({"cpu.high": 40, "cpu.normal": 5, "cpu.low": 3})
    assert [place for place, queue in enumerate(crowded, 1) if queue == "cpu.low"] == [10, 20, 30]
    assert [queue for queue in crowded if queue != "cpu.low"] == ["cpu.high"] * 40 + ["cpu.normal"] * 5


def test_queues_of_one_class_take_turns() -> None:
    assert served({"cpu.normal": 2, "gpu.normal": 2}) == ["cpu.normal", "gpu.normal"] * 2
