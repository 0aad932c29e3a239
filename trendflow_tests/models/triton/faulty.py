"""A SYNTHETIC served model, `faulty`, that misbehaves on purpose, and what its clients need.

The first number of an input says what goes wrong. The model is configured like any other and needs no weights: y = 2 x.
"""

from __future__ import annotations

import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.triton.connection import Session
from trendflow_tests.triton import Served

HANGS, BREAKS, TOO_LARGE, NO_OUTPUT, WRONG_SHAPE, WRONG_DTYPE, SAYS_ROWS, SAYS_REQUESTS = range(1, 9)
"""`SAYS_…` are no faults: the first number of each output row is the size of its request, or how many requests were
executed together with it."""

LARGEST_BATCH_IN_MEMORY = 3

# A slow model: in the server's process it polls for a file that the test makes, so no time is guessed.
FAULTY = f"""
import time
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        self.folder = Path(args["model_repository"])

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "x").as_numpy()
            fault, y = int(x[0, 0]), x * 2
            if fault == {HANGS}:
                (self.folder / "hanging").touch()
                while not (self.folder / "release").exists():
                    time.sleep(0.01)
            if fault == {BREAKS}:
                raise RuntimeError("the model broke")
            if fault == {TOO_LARGE} and len(x) > {LARGEST_BATCH_IN_MEMORY}:
                raise RuntimeError("std::bad_alloc: Failed to allocate memory for requested buffer")
            if fault in ({SAYS_ROWS}, {SAYS_REQUESTS}):
                y[:, 0] = len(x) if fault == {SAYS_ROWS} else len(requests)
            tensors = {{
                {NO_OUTPUT}: [],
                {WRONG_SHAPE}: [pb.Tensor("y", y[:, :2])],
                {WRONG_DTYPE}: [pb.Tensor("y", y.astype(np.float64))],
            }}.get(fault, [pb.Tensor("y", y)])
            answers.append(pb.InferenceResponse(tensors))
        return answers
"""


@contextmanager
def hanging(served: Served) -> Iterator[Path]:
    """A block in which requests with `HANGS` get no answer; yields the file that appears when the first is executed."""
    folder = served.folder / "repository" / "faulty"
    started, release = folder / "hanging", folder / "release"
    try:
        yield started
    finally:
        release.touch()
        session = Session(served.state.grpc_url, shared_memory=False)
        session.prove(served.entries["faulty"])  # executed after whatever hung
        session.close()
        for file in (release, started):
            file.unlink(missing_ok=True)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what has to come; what never comes ends the test by its time limit."""
    while not condition():
        time.sleep(0.01)


def waiting_requests(served: Served) -> int:
    """Requests for `faulty` that wait on the server for their execution."""
    with urllib.request.urlopen(f"http://127.0.0.1:{served.state.metrics_port}/metrics") as answer:
        text = answer.read().decode()
    (count,) = re.findall(r'^nv_inference_pending_request_count\{model="faulty",version="1"\} (\d+)$', text, re.M)
    return int(count)


def rows(count: int, first: float = 0.0) -> dict[str, np.ndarray]:
    """A batch whose rows all begin with `first`."""
    x = np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
    x[:, 0] = first
    return {"x": x}


def raised(work: Callable[..., object], *arguments: object, **named: Any) -> TrendFlowError:
    with pytest.raises(TrendFlowError) as error:
        work(*arguments, **named)
    return error.value


def code_of(work: Callable[[], object]) -> str:
    return raised(work).error_code


def own_names() -> list[str]:
    """Names in /dev/shm that clients of this process made; other processes on the machine have theirs."""
    return [name for name in os.listdir("/dev/shm") if re.match(rf"trendflow-\d+-{os.getpid()}-", name)]


def backend_processes(folder: Path) -> list[int]:
    """Live processes whose program lies in the folder of a server."""
    found = []
    for process in psutil.process_iter(["exe", "status"]):
        if (process.info["exe"] or "").startswith(str(folder)) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found
