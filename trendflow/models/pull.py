"""`trendflow models pull`: the only code of this package that reaches a network.

Downloads are pinned by revision and sha256, resume where an earlier attempt stopped, and appear in the models
directory only when complete and verified. A download that is a source only is converted here by its recipe, which
reads pickles in an isolated process, and is deleted afterwards.
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
from trendflow.models.build import place_companion
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.recipes import RECIPES, require_packages
from trendflow.models.sources import WeightsFile
from trendflow.models.store import WeightsStore, file_sha256

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
MAX_REDIRECTS = 5
MAX_UNKNOWN_BYTES = 4 << 30
"""Where the catalogue knows the digest of a source but not its size, a server is cut off here."""
_CHUNK = 1 << 18
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

Progress = Callable[[str, int, int | None], None]
"""(entry name, bytes on disk, total bytes where they are known)."""


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
    `rate_limited`, `network_error`, `config_invalid` (an address that is not https, a folder that cannot be written),
    and for a source that has to be converted `dependency_missing` (before anything is downloaded) or
    `model_load_failed`.
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


@dataclass(frozen=True)
class _Download:
    """One pinned file of a server. `path` is its name there, `partial` where it grows."""

    path: str
    sha256: str
    bytes: int | None
    partial: Path

    @classmethod
    def of(cls, entry: CatalogueEntry, file: WeightsFile, target: Path) -> _Download:
        """What has to be fetched for `file`: the file itself, or the source it is made from."""
        if file.is_built_from_source:
            path, sha256, size = str(entry.source.member), str(entry.source.sha256), entry.source.bytes
        else:
            path, sha256, size = file.path, file.sha256, file.bytes
        # The digest in the name keeps a partial download of other bytes from being continued.
        return cls(path, sha256, size, target.with_name(f".{target.name}.{sha256[:16]}.part"))


def _pull(client: httpx.Client, entry: CatalogueEntry, store: WeightsStore, progress: Progress | None) -> Pulled:
    if entry.source.kind != "url":
        return Pulled(entry.name, entry.version, "skipped", 0)
    if store.entry_state(entry) == "present":
        return Pulled(entry.name, entry.version, "present", 0)
    require_packages(entry.name, entry.source.recipe)
    downloaded = 0
    for file in entry.files:
        if file.path in entry.source.companions:
            place_companion(entry, file, store)
            continue
        target = store.prepare(entry, file)
        # Two pulls of one file would append to the same partial download.
        with FileLock(target.with_name(f".{target.name}.lock")):
            if store.state(entry, file) != "present":
                wanted = _Download.of(entry, file, target)
                downloaded += _complete(client, entry, wanted, progress)
                if file.is_built_from_source:
                    _convert(entry, file, wanted.partial, store)
                else:
                    store.accept(entry, file, wanted.partial)
    return Pulled(entry.name, entry.version, "pulled", downloaded)


def _convert(entry: CatalogueEntry, file: WeightsFile, source: Path, store: WeightsStore) -> None:
    """Make the file from its verified source. A conversion that fails leaves the source for the next attempt."""
    made = RECIPES[entry.source.recipe].make(source.read_bytes())
    with store.placing(entry, file) as temporary:
        temporary.write_bytes(made)
    source.unlink()


def _complete(client: httpx.Client, entry: CatalogueEntry, wanted: _Download, progress: Progress | None) -> int:
    """Bring the partial download to its end and check it; returns the bytes received."""
    partial = wanted.partial
    if partial.exists() and file_sha256(partial) == wanted.sha256:
        return 0
    received = _fetch(client, entry, wanted, progress)
    digest = file_sha256(partial)
    if digest != wanted.sha256:
        partial.unlink()  # continuing from wrong bytes can never succeed
        raise TrendFlowError(
            "weights_missing",
            f"The server's {wanted.path} for {entry.name} {entry.version} is not the file the catalogue pins.",
            entry=entry.name,
            file=wanted.path,
            expected_sha256=wanted.sha256,
            found_sha256=digest,
        )
    return received


def _fetch(client: httpx.Client, entry: CatalogueEntry, wanted: _Download, progress: Progress | None) -> int:
    url = entry.source.locator.format(revision=quote(entry.source.revision), path=quote(wanted.path))
    partial = wanted.partial
    start = partial.stat().st_size if partial.exists() else 0
    if wanted.bytes is not None and start >= wanted.bytes:
        start = 0  # complete or longer, and not the file: it would have been recognised
    # A coding would make the byte positions of a resumed download meaningless.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    received, total = 0, wanted.bytes
    try:
        with client.stream("GET", url, headers=headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                partial.unlink(missing_ok=True)  # it is longer than the server's file, so no continuation can be right
                raise TrendFlowError(
                    "network_error", f"What was there of {entry.name} does not fit the server's file; run it again."
                )
            _require_success(response, entry)
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                start = 0  # the server sends the whole file whatever was asked
            elif not re.match(rf"bytes {start}-", response.headers.get("Content-Range", "")):
                raise TrendFlowError("network_error", f"The server of {entry.name} resumed at a wrong position.")
            if total is None and "Content-Length" in response.headers:
                total = start + int(response.headers["Content-Length"])
            limit = wanted.bytes or MAX_UNKNOWN_BYTES
            with partial.open("r+b" if start else "wb") as stream:
                stream.seek(start)
                for piece in response.iter_bytes(_CHUNK):
                    received += len(piece)
                    if start + received > limit:
                        partial.unlink()
                        raise TrendFlowError(
                            "weights_missing",
                            f"The server sends more for {entry.name} than the catalogue pins.",
                            entry=entry.name,
                        )
                    stream.write(piece)
                    if progress is not None:
                        progress(entry.name, start + received, total)
    except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
        raise TrendFlowError(
            "network_error", f"The server of {entry.name}, {httpx.URL(url).host}, cannot be reached.", entry=entry.name
        ) from exc
    except httpx.HTTPError as exc:
        raise TrendFlowError(
            "network_error",
            f"The download of {entry.name} broke off after {start + received} of {_amount(total)}; run it again to "
            "continue.",
            entry=entry.name,
            type=type(exc).__name__,
        ) from exc
    if total is not None and start + received < total:
        raise TrendFlowError(
            "network_error",
            f"The server ended the download of {entry.name} after {start + received} of {_amount(total)}.",
            entry=entry.name,
        )
    return received


def _amount(total: int | None) -> str:
    return f"{total} bytes" if total is not None else "an unknown number of bytes"


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
