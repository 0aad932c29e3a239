"""Execution of catalogue entries on a Triton server, behind the same interface as in process."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.loaded import LoadedModel
from trendflow.models.tensor_checks import check_inputs, check_outputs
from trendflow.models.tensors import BATCH
from trendflow.models.triton.connection import Session, TritonConnection
from trendflow.models.triton.request import Request


class TritonHandle(LoadedModel):
    """A served model; implements `ModelHandle`. Safe to use from several threads.

    Every request carries the entry's deadline. Failures are not repeated here: the caller that repeats whole
    components does that, so that attempts do not multiply.
    """

    def __init__(self, entry: CatalogueEntry, device: str, connection: TritonConnection) -> None:
        super().__init__(entry, device)
        self._connection = connection
        self._checked: Session | None = None

    @classmethod
    def load(cls, entry: CatalogueEntry, device: str, connection: TritonConnection) -> TritonHandle:
        """A handle on a model that the server serves exactly as the catalogue says; see `Session.require`."""
        handle = cls(entry, device, connection)
        handle._session()
        return handle

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch; see `ModelHandle.infer`. One beyond the entry's limit is sent in several requests.

        Raises `model_spec_invalid` (wrong input, or the server now serves something else), `triton_unavailable`,
        `triton_timeout`, `triton_bad_response` (failed, misshapen or non-finite output), `model_not_found`,
        `model_load_failed` or `out_of_memory`.
        """
        symbols = check_inputs(self._entry, inputs, limited=False)
        session = self._session()
        batch, step = symbols.get(BATCH, 1), self._entry.max_batch_size
        requests: list[Request] = []
        try:
            for start in range(0, batch, step):
                size = min(step, batch - start)
                part = {name: array[start : start + size] for name, array in inputs.items()}
                requests.append(session.send(self._entry, part, {**symbols, BATCH: size}))
            parts = [session.result(request) for request in requests]
        except BaseException:
            _abandon(requests)
            raise
        outputs = parts[0]
        if len(parts) > 1:
            outputs = {name: np.concatenate([part[name] for part in parts]) for name in outputs}
        check_outputs(self._entry, outputs, symbols, error_code="triton_bad_response")
        return outputs

    def describe(self) -> dict[str, Any]:
        """What is served and where, for logs and `doctor`."""
        return self._description("triton")

    def close(self) -> None:
        """The model belongs to the server; the connection is closed by its owner."""

    def _session(self) -> Session:
        """A session whose server serves this entry: a server that was started again may serve something else."""
        session = self._connection.session()
        if session is not self._checked:
            session.require(self._entry)
            self._checked = session
        return session


def _abandon(requests: list[Request]) -> None:
    """Cancel what is in flight and wait until it has ended: its memory must not be given to others meanwhile."""
    for request in requests:
        request.cancel()
    for request in requests:
        with suppress(TrendFlowError, InferenceServerException, OSError):
            request.future.result()
