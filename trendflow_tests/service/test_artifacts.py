"""The manifest and the artifacts of a run, whole and in ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from trendflow.contracts.manifest import update_run
from trendflow.service.byte_ranges import ByteRange, Unsatisfiable, matches, parse_range
from trendflow.storage.result_store import ResultStore
from trendflow_tests.service.deployment import (
    KNOWN,
    accepted,
    assert_refused,
    client,
    make_parts,
    served,
    url,
    with_artifact,
)
from trendflow_tests.submission.desks import Deployment


@pytest.fixture(scope="module")
def stored() -> Iterator[Callable[..., httpx.Response]]:
    """Asks for an artifact of the bytes `KNOWN`, of a run that no test changes."""
    behind = Deployment()
    with served(make_parts(behind)) as address, client(address) as api:
        message = accepted(api, behind)
        with_artifact(behind, message)
        path = url(message, "/artifacts/core_clip/core_clip.npz")
        yield lambda method, **headers: api.request(method, path, headers=headers)


@pytest.mark.parametrize(
    ("header", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1048570-2097160", 1_048_570, 2_097_161),
        ("bytes=2999990-", 2_999_990, 3_000_000),
        ("bytes=-7", 2_999_993, 3_000_000),
        ("bytes=2999999-99999999", 2_999_999, 3_000_000),
        ("bytes=-99999999", 0, 3_000_000),
    ],
)
@pytest.mark.xdist_group("service_artifact")
def test_ranges_of_an_artifact(stored: Callable[..., httpx.Response], header: str, first: int, end: int) -> None:
    answer = stored("GET", Range=header)
    assert answer.status_code == 206
    assert answer.content == KNOWN[first:end]
    assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/3000000"
    assert answer.headers["Content-Length"] == str(end - first)


@pytest.mark.parametrize("headers", [{}, *({"Range": text} for text in ("bytes=0-1,4-5", "bytes=5-4", "lines=1-2"))])
@pytest.mark.xdist_group("service_artifact")
def test_whole_artifacts(stored: Callable[..., httpx.Response], headers: dict[str, str]) -> None:
    answer = stored("GET", **headers)
    assert (answer.status_code, answer.content) == (200, KNOWN)
    assert answer.headers["ETag"] == f'"{"5" * 64}"'
    head = stored("HEAD")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", "3000000")


def test_conditions_on_an_artifact(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    tag = f'"{with_artifact(behind, message)["sha256"]}"'
    path = url(message, "/artifacts/core_clip/core_clip.npz")
    assert api.get(path, headers={"If-None-Match": f'"other", W/{tag}'}).status_code == 304
    assert api.get(path, headers={"If-Range": tag, "Range": "bytes=0-3"}).content == KNOWN[:4]
    assert api.get(path, headers={"If-Range": '"other"', "Range": "bytes=0-3"}).content == KNOWN
    behind_the_end = api.get(path, headers={"Range": "bytes=3000000-"})
    assert_refused(behind_the_end, 416, "input_constraint_violated")
    assert behind_the_end.headers["Content-Range"] == "bytes */3000000"


@pytest.mark.parametrize(
    "path",
    [
        "manifest.json",
        "core_clip",
        "core_clip/",
        "core_clip/core_clip.npz/",
        "core_clip//core_clip.npz",
        "../../../state/_global/state_level1_global.json",
        "..%2f..%2fother/run/core_clip/core_clip.npz",
        "%2e%2e/run/core_clip/core_clip.npz",
        "core_clip/..%2fcore_clip/core_clip.npz",
        "core_clip%00.npz",
        "/etc/passwd",
    ],
)
def test_paths_that_the_manifest_does_not_name(api: httpx.Client, behind: Deployment, path: str) -> None:
    message = accepted(api, behind)
    with_artifact(behind, message)
    behind.store.put(f"result_store/{message.run_path}/core_clip/secret.npz", b"secret")
    assert_refused(api.get(url(message, f"/artifacts/{path}")), 404, "dependency_missing")
    assert_refused(api.get(url(message, "/artifacts/core_clip/secret.npz")), 404, "dependency_missing")


def test_raw_text_and_removed_artifacts_are_not_there(api: httpx.Client, behind: Deployment) -> None:
    private, removed = accepted(api, behind, video=1), accepted(api, behind, video=2)
    with_artifact(behind, private, retention_class="raw_text")
    with_artifact(behind, removed)
    behind.store.delete(f"result_store/{removed.run_path}/core_clip/core_clip.npz")
    for message in (private, removed):
        answer = api.get(url(message, "/artifacts/core_clip/core_clip.npz"))
        assert_refused(answer, 404, "dependency_missing")


def test_an_artifact_of_another_size_is_not_handed_out(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    with_artifact(behind, message, size=5)
    answer = api.get(url(message, "/artifacts/core_clip/core_clip.npz"))
    assert_refused(answer, 500, "artifact_validation_failed")


def test_the_manifest_as_it_is_stored(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    assert_refused(api.get(url(message, "/manifest")), 404, "dependency_missing")
    with_artifact(behind, message)
    stored = behind.store.get(f"result_store/{message.run_path}/manifest.json")
    answer = api.get(url(message, "/manifest"))
    assert answer.content == stored
    assert api.get(url(message, "/manifest"), headers={"Range": "bytes=5-14"}).content == stored[5:15]
    tag = answer.headers["ETag"]
    assert api.get(url(message, "/manifest"), headers={"If-None-Match": tag}).status_code == 304
    moment = behind.clock.utc()
    ResultStore(behind.store).update_manifest(message.run_path, lambda found: update_run(found, finished_at=moment))
    assert api.get(url(message, "/manifest"), headers={"If-None-Match": tag}).status_code == 200


def test_range_headers() -> None:
    assert parse_range("bytes=0-", 0x10) == ByteRange(0, 16)
    assert parse_range("bytes = 3 - 4", 10) == ByteRange(3, 2)
    assert parse_range("bytes=-", 10) is None
    for header in ("bytes=-0", "bytes=10-", "bytes=0-"):
        with pytest.raises(Unsatisfiable):
            parse_range(header, 10 if header != "bytes=0-" else 0)


def test_entity_tags() -> None:
    assert matches("*", '"a"')
    assert matches('W/"b" , "a"', '"a"')
    assert not matches('"ab"', '"a"')
    assert not matches(None, '"a"')
