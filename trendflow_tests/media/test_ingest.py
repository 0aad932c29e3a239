"""Local files, and downloads from an HTTP server on this machine through the same yt-dlp set-up."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.download import UrlPolicy, check_url
from trendflow.media.ingest import LocalSource, fetch
from trendflow.media.limits import MediaLimits
from trendflow.media.repair import remux
from trendflow_tests.media.clips import numbered_clip


@dataclass
class Site:
    """A web server: `answers[path]` are the statuses of consecutive requests (the last one stays), then the body."""

    body: bytes
    answers: dict[str, list[int]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    retry_after: str | None = None
    address: str = ""

    def url(self, path: str = "/clip.mp4") -> str:
        return f"http://{self.address}{path}"

    @property
    def policy(self) -> UrlPolicy:
        return UrlPolicy(frozenset({self.address}), ("generic",))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return numbered_clip(150).write(tmp_path / "clip.mp4")


@pytest.fixture
def site(clip: Path) -> Iterator[Site]:
    site = Site(clip.read_bytes())

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(with_body=True)

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def answer(self, with_body: bool) -> None:
            site.requests.append(self.path)
            statuses = site.answers.get(self.path, [200])
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            self.send_response(status)
            if status == 200:
                self.send_header("Content-Type", "video/mp4")
                self.send_header("Content-Length", str(len(site.body)))
            if status == 429 and site.retry_after:
                self.send_header("Retry-After", site.retry_after)
            self.end_headers()
            if status == 200 and with_body:
                self.wfile.write(site.body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def get(site: Site, tmp_path: Path, waits: list[float]) -> Callable[..., LocalSource]:
    def run(path: str = "/clip.mp4", limits: MediaLimits | None = None, **options: Any) -> LocalSource:
        return fetch(site.url(path), tmp_path / "in", limits, policy=site.policy, sleep=waits.append, **options)

    return run


def test_a_local_file_stays_where_it_is(clip: Path, tmp_path: Path) -> None:
    found = fetch(str(clip), tmp_path / "in")
    assert found.path == clip
    assert found.sha256 == hashlib.sha256(clip.read_bytes()).hexdigest()
    assert found.bytes == clip.stat().st_size
    assert (found.type, found.warnings) == ("local_path", ())
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("name", ["missing.mp4", "."])
def test_what_is_no_file_is_unavailable(name: str, tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError, match="source_unavailable"):
        fetch(str(tmp_path / name), tmp_path / "in")


def test_a_large_file_is_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError, match="input_constraint_violated"):
        fetch(str(clip), tmp_path / "in", MediaLimits(max_source_bytes=1000))


def test_a_download_brings_the_same_bytes(get: Callable[..., LocalSource], site: Site, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = get(progress=lambda done, total: seen.append((done, total)))
    assert found.path.read_bytes() == site.body
    assert found.sha256 == hashlib.sha256(site.body).hexdigest()
    assert found.type == "youtube_url"
    assert found.warnings == ("small_source_file",)
    assert seen[-1] == (len(site.body), len(site.body))
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["video.mp4"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/clip.mp4",
        "https://youtube.com.example.org/watch?v=aaaaaaaaaaa",
        "https://youtube.com@example.org/watch?v=aaaaaaaaaaa",
        "https://user:secret@youtube.com/watch?v=aaaaaaaaaaa",
        "https://youtube.com:8443/watch?v=aaaaaaaaaaa",
        "http://127.0.0.1/clip.mp4",
        "http://[::1",
        "file:///etc/passwd",
        "ftp://youtube.com/clip.mp4",
    ],
)
def test_other_addresses_are_refused_without_a_request(url: str, tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError) as caught:
        fetch(url, tmp_path / "in")
    assert caught.value.error_code == "input_constraint_violated"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "https://www.youtube.com/watch?v=aaaaaaaaaaa",
        "https://youtu.be/-aaaaaaaaaa",
        "https://m.youtube.com/shorts/aaaaaaaaaaa",
    ],
)
def test_platform_addresses_are_accepted(url: str) -> None:
    check_url(url, UrlPolicy())


def test_the_extractor_list_is_binding(site: Site, tmp_path: Path) -> None:
    policy = UrlPolicy(site.policy.hosts, ("youtube",))
    with pytest.raises(TrendFlowError, match="source_unavailable"):
        fetch(site.url(), tmp_path / "in", policy=policy)
    assert site.requests == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusing_platform_is_final(
    status: int, site: Site, get: Callable[..., LocalSource], waits: list[float]
) -> None:
    site.answers["/clip.mp4"] = [status]
    with pytest.raises(TrendFlowError) as caught:
        get()
    assert caught.value.error_code == "source_unavailable"
    assert waits == []


@pytest.mark.parametrize(("status", "code"), [(500, "network_error"), (503, "network_error"), (429, "rate_limited")])
def test_transient_failures_are_tried_four_times(
    status: int, code: str, site: Site, get: Callable[..., LocalSource], waits: list[float]
) -> None:
    site.answers["/clip.mp4"] = [status]
    with pytest.raises(TrendFlowError) as caught:
        get()
    assert caught.value.error_code == code
    assert waits == [5.0, 15.0, 30.0]
    assert len(site.requests) == 4


def test_a_recovering_platform_is_asked_again_when_it_says(
    site: Site, get: Callable[..., LocalSource], waits: list[float]
) -> None:
    site.answers["/clip.mp4"], site.retry_after = [429, 200], "21"
    assert get().path.read_bytes() == site.body
    assert waits == [21.0]


def test_an_unreachable_platform_is_a_network_error(free_port: Callable[[], int], tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    waits: list[float] = []
    with pytest.raises(TrendFlowError, match="network_error"):
        fetch(
            f"http://{address}/clip.mp4",
            tmp_path / "in",
            policy=UrlPolicy(frozenset({address}), ("generic",)),
            sleep=waits.append,
        )
    assert len(waits) == 3


def test_a_large_download_is_refused_and_leaves_nothing(get: Callable[..., LocalSource], tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError, match="input_constraint_violated"):
        get(limits=MediaLimits(max_source_bytes=5000))
    assert not (tmp_path / "in").exists()


def test_an_error_of_the_progress_callback_ends_the_download(get: Callable[..., LocalSource]) -> None:
    def stop(done: int, total: int) -> None:
        raise TrendFlowError("cancelled", "Stopped.")

    with pytest.raises(TrendFlowError, match="cancelled"):
        get(progress=stop)


def test_user_configuration_is_ignored(
    get: Callable[..., LocalSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "home" / ".config" / "yt-dlp"
    config.mkdir(parents=True)
    marker = tmp_path / "executed"
    (config / "config").write_text(f"--exec 'touch {marker}'\n--write-info-json\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    get()
    assert not marker.exists()
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["video.mp4"]


def test_separate_streams_are_joined_the_same_way_every_time(sample_video: Path, tmp_path: Path) -> None:
    for name in ("a.mkv", "b.mkv"):
        remux([sample_video, sample_video], tmp_path / name)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    with av.open(str(tmp_path / "a.mkv")) as joined, av.open(str(sample_video)) as source:
        assert [s.type for s in joined.streams] == ["video", "audio"]
        for kind in ("video", "audio"):
            copied = [bytes(p) for p in joined.demux(getattr(joined.streams, kind)[0]) if p.size]
            with av.open(str(sample_video)) as source:
                assert copied == [bytes(p) for p in source.demux(getattr(source.streams, kind)[0]) if p.size]
            joined.seek(0)
