"""Whole runs on a real S3 server: the results of a local folder, reuse, and frames that travel."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from trendflow.commands import inspect_run
from trendflow.config import Settings
from trendflow.models.pool import ModelPool
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.document_input import providing
from trendflow.orchestration.report_step import report_key, write_report
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.scratch import drop_scratch, scratch_dir
from trendflow.orchestration.validation import validate_run
from trendflow.orchestration.wrapper import finalise, run_status
from trendflow_tests.orchestration.runs import (
    AUDIO,
    TEXT,
    Execute,
    Submit,
    digests,
    fewer_pictures,
    origins,
    with_profile,
)
from trendflow_tests.s3 import s3_client


@pytest.fixture
def remote(
    tmp_path: Path, models_dir: Path, pool: ModelPool, s3_store_url: str, s3_options: dict[str, str]
) -> Deployment:
    """A deployment that keeps everything but scratch below a prefix of the bucket which no other test knows."""
    made = Deployment(
        Settings(
            home=tmp_path / "remote",
            models=models_dir,
            store_url=f"{s3_store_url}/{uuid4().hex}",
            store_options=s3_options,
            onnx_threads=1,
        )
    )
    vars(made)["pool"] = pool
    return made


def process(run: RunContext, execute: Execute) -> dict[str, str]:
    """From the source to the report, as a process does it that ends afterwards. Component → origin."""
    with providing(run, TEXT):
        found = origins(execute(run))
    finalise(run)
    write_report(run)
    drop_scratch(run)
    return found


def object_of(deployment: Deployment, key: str) -> bytes:
    """An object as another implementation of the protocol reads it."""
    url = urlsplit(deployment.settings.resolved_store_url)
    client = s3_client(deployment.settings.store_options)
    found = client.get_object(Bucket=url.netloc, Key=f"{url.path.strip('/')}/{key}")
    return bytes(found["Body"].read())


def test_a_run_on_s3_gives_the_results_of_a_local_one_and_is_reused(
    deployment: Deployment,
    remote: Deployment,
    clip: Path,
    submit: Submit,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for where in (deployment, remote):
        with_profile(where, fewer_pictures(8, 12))
    local, first, second = (submit(where, clip, document=TEXT) for where in (deployment, remote, remote))
    components = [node.name for node in local.enabled]
    assert process(local, execute) == dict.fromkeys(components, "computed")
    assert process(first, execute) == dict.fromkeys(components, "computed")
    assert process(second, execute) == dict.fromkeys(components, "cache")
    assert digests(first) == digests(second) == digests(local)
    for run in (first, second):
        assert validate_run(remote, run.run_path) == []
        manifest = run.manifest()
        assert run_status(run, manifest) == "success"
        for artifact in (artifact for row in manifest["components"] for artifact in row["artifacts"]):
            data = object_of(remote, f"result_store/{run.run_path}/{artifact['path']}")
            assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact["size"], artifact["sha256"])
        assert run.identity.run_id in object_of(remote, report_key(run.run_path)).decode()
    assert not any(path.is_file() for path in remote.settings.home.rglob("*")), "nothing may be left on this machine"

    monkeypatch.setattr(inspect_run, "_open", {"in S3": first, "here": local}.__getitem__)
    for key, is_told in (("in S3", True), ("here", False)):
        assert inspect_run.report(key, None) == 0
        assert ("--output FILE copies it here" in capsys.readouterr().err) is is_told


def test_frames_are_copied_inside_the_bucket_and_downloaded_where_they_are_read(
    deployment: Deployment, remote: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    local, first, second = submit(deployment, clip), submit(remote, clip), submit(remote, clip)
    execute(local, AUDIO)
    execute(first, {"segmenter"})
    drop_scratch(first)
    found = origins(execute(second, AUDIO))
    assert found == {"segmenter": "cache", "loudness_extractor": "computed", "tempo_extractor": "computed"}
    assert digests(second) == digests(local)
    # What was read is what was uploaded: the second run never decoded, it has its own copy in the bucket.
    scratch = scratch_dir(second) / "frames"
    copied = {path.relative_to(scratch).as_posix() for path in scratch.rglob("*.npy")}
    assert copied
    for name in copied:
        data = (scratch / name).read_bytes()
        for run in (first, second, local):
            store = run.deployment.store
            assert store.get(f"frames_store/{run.run_path}/{name}") == data
    assert validate_run(remote, second.run_path) == []
