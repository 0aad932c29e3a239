"""Listening: one process, on the loopback interface unless told otherwise."""

from __future__ import annotations

import ssl
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from trendflow.contracts.errors import TrendFlowError
from trendflow.loopback import HOST

_STOP_SEC = 10


def make_server(
    app: FastAPI,
    host: str = HOST,
    port: int = 0,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    client_authority: Path | None = None,
) -> uvicorn.Server:
    """A server to `run()`. With a certificate it speaks TLS; with `client_authority` callers need one too.

    Raises `config_invalid` for a key without a certificate and for callers' certificates without TLS.
    """
    if (certificate is None) != (key is None) or (client_authority is not None and certificate is None):
        raise TrendFlowError("config_invalid", "TLS needs a certificate with its key; callers' certificates need TLS.")
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,  # it would log queries; the gate writes its own line
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_STOP_SEC,  # event streams never end by themselves
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_ca_certs=None if client_authority is None else str(client_authority),
        ssl_cert_reqs=ssl.CERT_NONE if client_authority is None else ssl.CERT_REQUIRED,
    )
    return uvicorn.Server(config)
