"""`trendflow models pull`: the only code of this package that reaches a network.

Downloads are pinned by revision and sha256, resume where an earlier attempt stopped, and appear in the models
directory only when complete and verified.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import httpx
from filelock import FileLock

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue, CatalogueEntry, WeightsFile
from trendflow.models.store import WeightsStore

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
MAX_REDIRECTS = 5
_CHUNK = 1 << 18
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

Progress = Callable[[str, int, int], None]
"""(entry name, bytes on disk, total bytes)."""


@dataclass(frozen=True)
class Pulled:
    """What happened to one entry: `present`, `pulled`, or `skipped` (it is built, not downloaded)."""

    entry: str
    version: str
    action: Literal["present", "pulled", "skipped"]
    bytes_downloaded: int


def pull_models(
    catalogue: Catalogue,
    models_dir: Path,
    names: Iterable[str] | None = None,
    progress: Progress | None = None,
    transport: httpx.BaseTransport | None = None,
) -> list[Pulled]:
    """Download the named entries, or all that have a `url` source.

    Raises `model_not_found` (unknown name), `weights_missing` (the server lacks the file or serves other bytes),
    `rate_limited`, `network_error` or `config_invalid` (an address that is not https).
    """
    store = WeightsStore(models_dir)
    chosen = list(catalogue) if names is None else [catalogue[name] for name in names]
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    with httpx.Client(
        timeout=timeout,
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        transport=transport,
        event_hooks={"request": [_require_encrypted]},
    ) as client:
        return [_pull(client, entry, store, progress) for entry in chosen]


def _pull(client: httpx.Client, entry: CatalogueEntry, store: WeightsStore, progress: Progress | None) -> Pulled:
    if entry.source.kind != "url":
        return Pulled(entry.name, entry.version, "skipped", 0)
    downloaded = 0
    for file in entry.files:
        target = store.path(entry, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Two pulls of one file would append to the same partial download.
        with FileLock(target.with_name(f".{target.name}.lock")):
            if store.state(entry, file) != "present":
                downloaded += _download(client, entry, file, store, progress)
    return Pulled(entry.name, entry.version, "pulled" if downloaded else "present", downloaded)


def _download(
    client: httpx.Client, entry: CatalogueEntry, file: WeightsFile, store: WeightsStore, progress: Progress | None
) -> int:
    """Fetch one file through its partial download; returns the bytes received."""
    target = store.path(entry, file)
    # The digest in the name keeps a partial download of other bytes from being continued.
    partial = target.with_name(f".{target.name}.{file.sha256[:16]}.part")
    received = 0
    if not partial.exists() or partial.stat().st_size < file.bytes:
        received = _fetch(client, entry, file, partial, progress)
    try:
        store.accept(entry, file, partial)
    except TrendFlowError:
        partial.unlink(missing_ok=True)  # continuing from wrong bytes can never succeed
        raise
    return received


def _fetch(
    client: httpx.Client, entry: CatalogueEntry, file: WeightsFile, partial: Path, progress: Progress | None
) -> int:
    url = entry.source.locator.format(revision=quote(entry.source.revision), path=quote(file.path))
    start = partial.stat().st_size if partial.exists() else 0
    # A coding would make the byte positions of a resumed download meaningless.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    received = 0
    try:
        with client.stream("GET", url, headers=headers) as response:
            _require_success(response, entry)
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                start = 0  # the server sends the whole file whatever was asked
            elif not re.match(rf"bytes {start}-", response.headers.get("Content-Range", "")):
                raise TrendFlowError("network_error", f"The server of {entry.name} resumed at a wrong position.")
            with partial.open("r+b" if start else "wb") as stream:
                stream.seek(start)
                for piece in response.iter_bytes(_CHUNK):
                    received += len(piece)
                    if start + received > file.bytes:
                        partial.unlink()
                        raise TrendFlowError(
                            "weights_missing",
                            f"The server sends more for {entry.name} than the catalogue pins.",
                            entry=entry.name,
                        )
                    stream.write(piece)
                    if progress is not None:
                        progress(entry.name, start + received, file.bytes)
    except httpx.HTTPError as exc:
        raise TrendFlowError(
            "network_error",
            f"The download of {entry.name} broke off after {start + received} of {file.bytes} bytes; run it again "
            "to continue.",
            entry=entry.name,
            type=type(exc).__name__,
        ) from exc
    if start + received < file.bytes:
        raise TrendFlowError(
            "network_error",
            f"The server ended the download of {entry.name} after {start + received} of {file.bytes} bytes.",
            entry=entry.name,
        )
    return received


def _require_success(response: httpx.Response, entry: CatalogueEntry) -> None:
    status = response.status_code
    if status in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
        return
    if status == httpx.codes.TOO_MANY_REQUESTS:
        raise TrendFlowError(
            "rate_limited",
            f"The server of {entry.name} asks to wait.",
            entry=entry.name,
            retry_after=response.headers.get("Retry-After"),
        )
    if response.is_server_error:
        raise TrendFlowError("network_error", f"The server of {entry.name} answered {status}.", status=status)
    raise TrendFlowError(
        "weights_missing", f"The server answered {status} for the weights of {entry.name}.", status=status
    )


def _require_encrypted(request: httpx.Request) -> None:
    """Also run for redirects. Digests already guard the bytes; this guards what is asked for."""
    if request.url.scheme != "https" and request.url.host not in _LOOPBACK:
        raise TrendFlowError("config_invalid", "Weights are downloaded over https only.")
