"""Pytest plugin: a real S3 server (SeaweedFS) on loopback for the whole session.

`s3_store_url` and `s3_options` are what `ObjectStore.open` takes. The server has free ports, a temporary folder and
credentials of its own; it is started by the first test that asks and stopped with the session.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from trendflow_tests.ports import held_ports

BUCKET = "trendflow-test"
CREDENTIALS = {"access_key_id": "test-key", "secret_access_key": "test-secret", "region": "us-east-1"}

_SERVICES = ("master", "volume", "filer", "s3")
_READY_SEC = 180.0


def _command(folder: Path, ports: Sequence[int]) -> tuple[list[str], str]:
    """Command line and endpoint of a server that keeps its data in `folder`; it needs two ports for each service."""
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": CREDENTIALS["access_key_id"], "secretKey": CREDENTIALS["secret_access_key"]}],
        "actions": ["Admin"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir()
    http = dict(zip(_SERVICES, ports[: len(_SERVICES)], strict=True))
    grpc = dict(zip(_SERVICES, ports[len(_SERVICES) :], strict=True))
    options = {
        "dir": str(data),
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.config": str(config),
        "s3.iam": "false",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
        "master.raftBootstrap": "true",  # a single master need not wait for peers
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": "128",
        "volume.max": "32",
        "volume.preStopSeconds": "0",
        **{f"{service}.port": str(http[service]) for service in _SERVICES},
        **{f"{service}.port.grpc": str(grpc[service]) for service in _SERVICES},
    }
    weed = Path(sys.executable).parent / "weed"
    arguments = ["-logtostderr=true", "server", "-s3", *(f"-{name}={value}" for name, value in options.items())]
    return [str(weed), *arguments], f"http://127.0.0.1:{http['s3']}"


def s3_client(options: dict[str, str]) -> BaseClient:
    """A boto3 client for the same server: a second, independent implementation of the protocol."""
    return boto3.client(
        "s3",
        endpoint_url=options["endpoint"],
        aws_access_key_id=options["access_key_id"],
        aws_secret_access_key=options["secret_access_key"],
        region_name=options["region"],
        config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}),
    )


def _wait_until_ready(process: subprocess.Popen[bytes], options: dict[str, str], log: Path) -> None:
    """Make the bucket and store an object in it: the server answers some time before it has a volume to write to."""
    client = s3_client(options)
    deadline = time.monotonic() + _READY_SEC
    while True:
        try:
            # Each round does both, so the bucket of a former one, whose object was refused, may be there.
            with suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
            return
        except (BotoCoreError, ClientError) as exc:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"SeaweedFS did not start ({exc}): {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)


@pytest.fixture(scope="session")
def s3_options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Client options of a running SeaweedFS server with the bucket `trendflow-test`."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    log = folder / "server.log"
    with held_ports(2 * len(_SERVICES)) as ports:
        command, endpoint = _command(folder, ports)
        options = {"endpoint": endpoint, **CREDENTIALS}
        with log.open("wb") as sink:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd=folder)
        try:
            _wait_until_ready(process, options, log)
            yield options
        finally:
            # A polite stop takes the server over 15 s, and its data are thrown away anyway.
            process.kill()
            process.wait()
            for port in ports:
                for name in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # the server gives no other place for them
                    name.unlink()


@pytest.fixture(scope="session")
def s3_store_url(s3_options: dict[str, str]) -> str:
    """URL of the test bucket; add a prefix of your own to be alone in it."""
    return f"s3://{BUCKET}"
