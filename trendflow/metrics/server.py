"""Telling the metrics of a process that serves nothing else, on a port of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from trendflow.metrics.process import ProcessMetrics


class _Quiet(WSGIRequestHandler):
    """A scrape every few seconds is nothing to log."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(metrics: ProcessMetrics, host: str, port: int, sources: Sequence[Callable[[], None]] = ()) -> WSGIServer:
    """Answer `GET /metrics` in the background until the process ends; `sources` are called before each answer.

    Port 0 takes any free one. Raises `OSError` when it cannot listen there.
    """
    told = make_wsgi_app(metrics.registry)

    def fresh(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        for source in sources:
            source()
        return told(environ, start_response)

    server = make_server(host, port, fresh, ThreadingWSGIServer, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
