"""The client's side of one Triton server: a channel that survives restarts, health, model checks and requests.

There is no fallback of any kind: what the server cannot do is an error.
"""

from __future__ import annotations

import itertools
import logging
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.tensor_checks import check_inputs
from trendflow.models.tensors import smallest_inputs
from trendflow.models.triton.config import SERVED_VERSION, difference
from trendflow.models.triton.errors import typed
from trendflow.models.triton.request import Request
from trendflow.models.triton.shared_memory import SharedMemoryPool
from trendflow.models.triton.wire import InferenceChannel

log = logging.getLogger(__name__)

MAX_IN_FLIGHT = 8
"""Requests of one process that wait for the server at the same time; more would only queue there."""

_CALL_TIMEOUT_S = 5.0
_LOOPBACK = ("127.0.0.1:", "localhost:", "[::1]:")
_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that was restarted is found within the second that retries wait; gRPC would back off for two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
]


def answering_server(url: str, timeout_s: float = _CALL_TIMEOUT_S) -> str | None:
    """What the live server at `url` calls itself; None when none answers."""
    with InferenceServerClient(url, channel_args=_CHANNEL) as client:
        try:
            live = client.is_server_live(client_timeout=timeout_s)
            return str(client.get_server_metadata(client_timeout=timeout_s).name) if live else None
        except InferenceServerException:
            return None


class TritonConnection:
    """A server as this process reaches it. Thread-safe.

    `address` is asked anew whenever the server was lost, because one that is started again has other ports.
    `shared_memory` False keeps tensors on the wire even where server and client share a host.
    """

    def __init__(
        self, address: Callable[[], str], *, shared_memory: bool = True, max_in_flight: int = MAX_IN_FLIGHT
    ) -> None:
        self._address = address
        self._shared_memory = shared_memory
        self._max_in_flight = max_in_flight
        self._lock = threading.Lock()
        self._session: Session | None = None

    def session(self) -> Session:
        """The open session, or a new one. Raises `triton_unavailable`."""
        with self._lock:
            if self._session is None or self._session.is_lost:
                self._session = None
                self._session = Session(self._address(), self._shared_memory, self._max_in_flight)
            return self._session

    def require(self, entry: CatalogueEntry) -> None:
        """Check that the server serves exactly `entry`; see `Session.require`."""
        self.session().require(entry)

    def close(self) -> None:
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()


@dataclass(frozen=True)
class ModelState:
    """How the server sees one of its models: `state` is Triton's word, READY when it takes requests."""

    name: str
    version: str
    state: str
    reason: str


class Session:
    """One channel to one server process, until that is lost."""

    def __init__(self, url: str, shared_memory: bool = True, max_in_flight: int = MAX_IN_FLIGHT) -> None:
        self.is_lost = False
        self._client = InferenceServerClient(url, channel_args=_CHANNEL)
        self._channel = InferenceChannel(url, _CHANNEL)
        self._slots = threading.BoundedSemaphore(max_in_flight)
        self._name = uuid.uuid4().hex[:12]
        self._numbers = itertools.count()
        if not self._ask(None, self._client.is_server_live):
            raise TrendFlowError("triton_unavailable", "The Triton server is not live.")
        self._memory = SharedMemoryPool.open(self._client) if shared_memory and url.startswith(_LOOPBACK) else None
        way = "in shared memory" if self.uses_shared_memory else "on the wire"
        log.info("connected to Triton at %s, tensors %s", url, way)
        # Runs when the session is dropped and at the latest when the interpreter ends.
        self._release = weakref.finalize(self, _release, self._client, self._channel, self._memory)

    @property
    def uses_shared_memory(self) -> bool:
        return self._memory is not None

    @property
    def is_live(self) -> bool:
        """Whether the server still answers."""
        try:
            return bool(self._ask(None, self._client.is_server_live))
        except TrendFlowError:
            return False

    def close(self) -> None:
        self.is_lost = True
        self._release()

    def models(self) -> list[ModelState]:
        """All models of the server's repository."""
        index = self._ask(None, self._client.get_model_repository_index)
        return [ModelState(model.name, model.version, model.state, model.reason) for model in index.models]

    def require(self, entry: CatalogueEntry) -> None:
        """Check that the model is ready and is exactly `entry`: names, types, sizes, batch limit, weights, classes.

        Raises `model_not_found`, `model_load_failed` (known to the server, but not ready), `model_spec_invalid` or
        `triton_unavailable`.
        """
        if not self._ask(entry, self._client.is_model_ready, entry.name, SERVED_VERSION):
            raise self._absence(entry) or TrendFlowError(
                "triton_unavailable", f"The Triton server is not ready for {entry.name} yet.", entry=entry.name
            )
        served = self._ask(entry, self._client.get_model_config, entry.name, SERVED_VERSION).config
        problem = difference(entry, served)
        if problem is not None:
            raise TrendFlowError(
                "model_spec_invalid",
                f"The Triton server's {entry.name} {problem}.",
                entry=entry.name,
            )

    def prove(self, entry: CatalogueEntry) -> None:
        """Have the model execute one small batch: a server goes on calling a model ready whose process died.

        Raises what `result` does.
        """
        inputs = smallest_inputs(entry.inputs)
        self.result(self.send(entry, inputs, check_inputs(entry, inputs)))

    def send(self, entry: CatalogueEntry, inputs: Mapping[str, np.ndarray], symbols: Mapping[str, int]) -> Request:
        """Send one batch without waiting for its answer; waits for a slot while too many are in flight.

        `symbols` are the sizes of the symbolic dimensions in this batch. Failures show in `result`.
        """
        self._slots.acquire()
        request = Request(entry, f"{self._name}-{next(self._numbers)}", symbols, self._memory, self._slots.release)
        try:
            message = request.prepare(inputs)
            request.cancel = self._channel.infer(message, entry.deadline_ms / 1000, request.answer)
        except (InferenceServerException, OSError, TrendFlowError) as exc:
            request.fail(exc)
        except BaseException:
            request.fail(None)
            raise
        return request

    def result(self, request: Request) -> dict[str, np.ndarray]:
        """Wait for the answer of a request. Raises `triton_bad_response` and what `errors.typed` knows."""
        try:
            return request.future.result()
        except InferenceServerException as exc:
            raise self._typed(exc, request.entry) from exc
        except OSError as exc:  # no memory to share
            raise as_typed(exc) from exc

    def _ask(self, entry: CatalogueEntry | None, method: Callable[..., Any], *arguments: str) -> Any:
        try:
            return method(*arguments, client_timeout=_CALL_TIMEOUT_S)
        except InferenceServerException as exc:
            raise self._typed(exc, entry) from exc

    def _typed(self, exc: InferenceServerException, entry: CatalogueEntry | None) -> TrendFlowError:
        """The typed error; a model that is known but not ready is told apart from one that is not there.

        Triton answers UNAVAILABLE for both a lost connection and an unloaded model, and NOT_FOUND for a model that
        failed to load; only its index of models knows which it is.
        """
        error = typed(exc, entry.name if entry else None)
        if error.error_code == "triton_unavailable":
            self.is_lost = True
        if entry is not None and error.error_code in ("triton_unavailable", "model_not_found"):
            try:
                return self._absence(entry) or error
            except TrendFlowError:  # nobody answers any more: what was asked first has the better words
                return error
        return error

    def _absence(self, entry: CatalogueEntry) -> TrendFlowError | None:
        """Why a model cannot be asked, by the server's own index; None when the index sees nothing wrong."""
        pinned = [model for model in self.models() if model.name == entry.name and model.version == SERVED_VERSION]
        if not pinned:
            return TrendFlowError(
                "model_not_found",
                f"The Triton server has no model {entry.name} in version {SERVED_VERSION}.",
                entry=entry.name,
            )
        if pinned[0].state == "READY":
            return None
        log.error("triton could not load %s: %s", entry.name, pinned[0].reason)
        return TrendFlowError(
            "model_load_failed",
            f"The Triton server could not load {entry.name}.",
            entry=entry.name,
            state=pinned[0].state,
        )


def _release(client: InferenceServerClient, channel: InferenceChannel, memory: SharedMemoryPool | None) -> None:
    if memory is not None:
        memory.close()
    channel.close()
    client.close()
