"""Downloads from a real HTTP server on loopback: pinned, resumable, atomic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.build import build_models
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.pull import Pulled, pull_models
from trendflow.models.store import WeightsStore
from trendflow_tests.models.builders import catalogue_of, entry_for
from trendflow_tests.models.weights_server import DATA, Server


def _entry(server: Server, data: bytes = DATA) -> CatalogueEntry:
    source = {"kind": "url", "locator": server.url + "/tiny/{revision}/{path}", "revision": "4f2c"}
    return entry_for(data, source=source)


def _failure(entry: CatalogueEntry, models_dir: Path) -> TrendFlowError:
    with pytest.raises(TrendFlowError) as caught:
        pull_models(catalogue_of(entry), models_dir)
    assert WeightsStore(models_dir).entry_state(entry) == "missing"
    return caught.value


def _left(models_dir: Path) -> list[str]:
    return sorted(path.name for path in models_dir.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


def test_a_pinned_revision_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    entry = _entry(server)
    seen: list[int] = []
    rows = pull_models(catalogue_of(entry), tmp_path, progress=lambda name, done, total: seen.append(done))
    assert rows == [Pulled("tiny", "1.0", "pulled", len(DATA))]
    assert server.requests == [("/tiny/4f2c/model.onnx", None)]
    assert WeightsStore(tmp_path).verify(entry)[0].read_bytes() == DATA
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)
    assert pull_models(catalogue_of(entry), tmp_path) == [Pulled("tiny", "1.0", "present", 0)]
    assert len(server.requests) == 1


def test_a_broken_download_continues_where_it_stopped(server: Server, tmp_path: Path) -> None:
    entry = _entry(server)
    server.break_after = 700_000
    assert _failure(entry, tmp_path).error_code == "network_error"
    (partial,) = tmp_path.rglob("*.part")
    held = partial.stat().st_size
    assert 0 < held <= 700_000
    server.break_after = None
    assert pull_models(catalogue_of(entry), tmp_path) == [Pulled("tiny", "1.0", "pulled", len(DATA) - held)]
    assert server.requests[-1][1] == f"bytes={held}-"
    assert WeightsStore(tmp_path).verify(entry)[0].read_bytes() == DATA
    assert _left(tmp_path) == ["model.onnx"]


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    entry = _entry(server)
    server.break_after = 700_000
    _failure(entry, tmp_path)
    server.break_after, server.ranges = None, False
    assert pull_models(catalogue_of(entry), tmp_path)[0].bytes_downloaded == len(DATA)
    assert WeightsStore(tmp_path).verify(entry)[0].read_bytes() == DATA


def test_a_server_that_resumes_elsewhere_is_not_believed(server: Server, tmp_path: Path) -> None:
    entry = _entry(server)
    server.break_after = 700_000
    _failure(entry, tmp_path)
    server.break_after, server.shift = None, 5
    assert _failure(entry, tmp_path).error_code == "network_error"


def test_other_bytes_are_thrown_away(server: Server, tmp_path: Path) -> None:
    server.data = bytes([DATA[0] ^ 1]) + DATA[1:]
    assert _failure(_entry(server), tmp_path).error_code == "weights_missing"
    assert _left(tmp_path) == []


def test_a_server_that_never_stops_is_cut_off(server: Server, tmp_path: Path) -> None:
    server.data = DATA * 8
    assert _failure(_entry(server), tmp_path).error_code == "weights_missing"
    assert _left(tmp_path) == []


def test_a_partial_download_that_does_not_fit_is_dropped(server: Server, tmp_path: Path) -> None:
    entry = _entry(server)
    server.break_after = 700_000
    _failure(entry, tmp_path)
    server.break_after, server.status = None, 416
    assert _failure(entry, tmp_path).error_code == "network_error"
    assert _left(tmp_path) == []
    server.status = 200
    assert pull_models(catalogue_of(entry), tmp_path)[0].bytes_downloaded == len(DATA)


def test_a_short_answer_is_no_download(server: Server, tmp_path: Path) -> None:
    server.data = DATA[:-1]
    assert _failure(_entry(server), tmp_path).error_code == "network_error"


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "weights_missing"), (403, "weights_missing"), (429, "rate_limited"), (503, "network_error")],
)
def test_every_refusal_has_its_code(server: Server, tmp_path: Path, status: int, code: str) -> None:
    server.status = status
    error = _failure(_entry(server), tmp_path)
    assert error.error_code == code
    if status == 429:
        assert error.detail["retry_after"] == "7"


def test_a_server_that_is_not_there_is_a_network_error(tmp_path: Path, free_port: Callable[[], int]) -> None:
    server = Server(url=f"http://127.0.0.1:{free_port()}")
    error = _failure(_entry(server), tmp_path)
    assert (error.error_code, error.message) == ("network_error", "The server of tiny, 127.0.0.1, cannot be reached.")


@pytest.mark.parametrize("folder", ["/proc/no/such", "{tmp}/file"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_asked(
    server: Server, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "file").touch()
    models = Path(folder.format(tmp=tmp_path))
    error = _failure(_entry(server), models)
    assert error.error_code == "config_invalid"
    assert error.message.startswith("The models folder, which TRENDFLOW_HOME or TRENDFLOW_MODELS names, cannot be ")
    assert server.requests == []
    with pytest.raises(TrendFlowError) as built:
        build_models(Catalogue.load(), models, ["nanodet_m_416"])
    assert built.value.message == error.message


def test_plain_http_is_refused_even_behind_a_redirect(server: Server, tmp_path: Path) -> None:
    assert _failure(_entry(Server(url="http://example.org")), tmp_path).error_code == "config_invalid"
    server.redirect = "http://example.org/model.onnx"
    assert _failure(_entry(server), tmp_path).error_code == "config_invalid"


def test_what_is_built_is_not_pulled(tmp_path: Path) -> None:
    entry = entry_for(DATA)
    assert pull_models(catalogue_of(entry), tmp_path) == [Pulled("tiny", "1.0", "skipped", 0)]
    with pytest.raises(TrendFlowError, match="model_not_found"):
        pull_models(catalogue_of(entry), tmp_path, ["nobody"])
