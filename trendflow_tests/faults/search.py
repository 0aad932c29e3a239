"""Byte searches through everything that a deployment keeps, with what is packed unpacked."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import psycopg2
import pyarrow.parquet as pq
import redis
from psycopg2 import sql

from trendflow.storage.object_store import ObjectStore
from trendflow_tests.orchestration.queue.stage import wait_for

Needles = Mapping[str, Collection[str]]
"""What is looked for, by what it is."""


def unpacked(data: bytes) -> Iterator[bytes]:
    """The bytes, and those of what they are an archive of."""
    yield data
    if data[:2] == b"\x1f\x8b":
        yield from unpacked(gzip.decompress(data))
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from unpacked(archive.read(name))
    elif data[:4] == b"PAR1":
        yield json.dumps(pq.read_table(io.BytesIO(data)).to_pylist(), default=str).encode()
    elif data[:6] == b"\x93NUMPY":
        array = np.load(io.BytesIO(data), allow_pickle=False)
        if array.dtype.kind == "U":  # four bytes for each character
            yield "\n".join(array.ravel().tolist()).encode()


def named(needles: Needles, *texts: bytes) -> set[str]:
    """Which kinds of needles stand in one of the texts, in any packing."""
    parts = [part for text in texts for part in unpacked(text)]
    return {kind for kind, words in needles.items() if any(word.encode() in part for word in words for part in parts)}


def in_store(store: ObjectStore, needles: Needles) -> dict[str, set[str]]:
    """Keys of the objects that name something, with what they name."""
    return _found({info.key: store.get(info.key) for info in store.list()}, needles)


def in_files(folder: Path, needles: Needles, without: Collection[Path] = ()) -> dict[str, set[str]]:
    """As `in_store`, for the files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    kept = [path for path in files if not any(path.is_relative_to(other) for other in without)]
    return _found({str(path.relative_to(folder)): _content(path) for path in kept}, needles)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # of a server that is at work, which has removed it meanwhile
        return b""


def in_database(url: str, needles: Needles) -> dict[str, set[str]]:
    """Rows of all tables, by table, and the values that PostgreSQL keeps of them to plan queries (`pg_stats`)."""
    texts: dict[str, bytes] = {}
    with psycopg2.connect(url.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT schemaname, tablename FROM pg_tables WHERE schemaname <> 'information_schema'")
        for schema, table in cursor.fetchall():
            if schema != "pg_catalog":
                cursor.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(schema, table)))
                texts[table] = "\n".join(row for (row,) in cursor.fetchall()).encode()
        cursor.execute("SELECT s::text FROM pg_stats s")
        texts["pg_stats"] = "\n".join(row for (row,) in cursor.fetchall()).encode()
    connection.close()
    return _found(texts, needles)


def in_broker(url: str, needles: Needles) -> dict[str, set[str]]:
    """Values of all keys, as the broker would move them to another one."""
    client = redis.Redis.from_url(url)
    return _found({key.decode(): client.dump(key) or b"" for key in client.scan_iter()}, needles)


def gather_statistics(url: str) -> None:
    """What PostgreSQL does by itself every now and then."""
    _tell(url, "ANALYZE")


def vacuum(url: str) -> None:
    """Have PostgreSQL write its tables anew, without the rows that were deleted, and bring them to the disk."""
    _tell(url, "VACUUM FULL", "CHECKPOINT")


def _tell(url: str, *commands: str) -> None:
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    connection.autocommit = True
    with connection.cursor() as cursor:
        for command in commands:
            cursor.execute(command)
    connection.close()


def rewrite(url: str) -> None:
    """Have Valkey write the file of its commands anew, which then holds what there is and not what there was."""
    client = redis.Redis.from_url(url)
    client.bgrewriteaof()

    def done() -> bool:
        state = client.info("persistence")
        return not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])

    wait_for(done, "the file of the broker")
    assert client.info("persistence")["aof_last_bgrewrite_status"] == "ok"


def _found(texts: Mapping[str, bytes], needles: Needles) -> dict[str, set[str]]:
    found = {name: named(needles, name.encode(), text) for name, text in texts.items()}
    return {name: kinds for name, kinds in found.items() if kinds}
