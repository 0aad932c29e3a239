"""Where the server listens, and to whom it speaks."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.loopback import HOST
from trendflow.service.app import create_app
from trendflow.service.server import make_server
from trendflow_tests.service.certificates import make_certificate
from trendflow_tests.service.deployment import make_parts, served
from trendflow_tests.submission.desks import Deployment


def test_the_server_listens_on_the_loopback_interface_unless_told() -> None:
    app = create_app(make_parts(Deployment()))
    assert make_server(app).config.host == HOST == "127.0.0.1"
    with pytest.raises(TrendFlowError, match="config_invalid"):
        make_server(app, client_authority=Path("authority.pem"))


def test_callers_need_a_certificate_of_the_authority(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path / "server", "service.example.org")
    trusted, stranger = (make_certificate(tmp_path / name, name) for name in ("backend", "stranger"))
    tls = {"certificate": certificate, "key": key, "client_authority": trusted[0]}
    with served(make_parts(Deployment()), tls=tls) as address:
        for files, welcome in ((trusted, True), (stranger, False), (None, False)):
            context = ssl.create_default_context(cafile=str(certificate))
            if files is not None:
                context.load_cert_chain(*files)
            with httpx.Client(verify=context, trust_env=False, timeout=60) as caller:
                if welcome:
                    assert caller.get(f"{address}/health/live").status_code == 200
                else:
                    with pytest.raises(httpx.TransportError):
                        caller.get(f"{address}/health/live")
