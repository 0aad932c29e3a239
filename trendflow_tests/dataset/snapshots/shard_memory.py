"""Prints how much memory reading large SYNTHETIC shards adds, in MB. A process of its own: peaks never go down."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator

from trendflow.dataset.snapshots.json_shards import read_json_shard
from trendflow.dataset.snapshots.observations import Observations


class Shard:
    """A file of `videos` records with `kilobytes` of comments each, made while it is read."""

    def __init__(self, videos: int, kilobytes: int) -> None:
        comments = ",".join([json.dumps("c" * 1000)] * kilobytes)
        shot = f'{{"time_get": "2026_01_10_12_00", "viewCount": "1", "comments": [{comments}]}}'
        record = f'{{"metadata": {{"publishedAt": "2026-01-09T12:00:00Z", "title": "t"}}, "snapshot_0": {shot}}}'
        self._begin = lambda: self._made(videos, record)
        self.seek(0)

    @staticmethod
    def _made(videos: int, record: str) -> Iterator[bytes]:
        yield b"{"
        for at in range(videos):
            yield f'{"," if at else ""}"v{at:010d}":{record}'.encode()
        yield b"}"

    def seek(self, position: int) -> None:
        assert position == 0
        self._parts, self._left = self._begin(), b""

    def read(self, size: int) -> bytes:
        while len(self._left) < size and (part := next(self._parts, None)) is not None:
            self._left += part
        found, self._left = self._left[:size], self._left[size:]
        return found


def peak(videos: int, kilobytes: int) -> float:
    into = Observations()
    read_json_shard(Shard(videos, kilobytes), "shard.json", into)  # type: ignore[arg-type]  # it needs no more
    assert len(into) == videos
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    small = peak(200, 10)
    print(json.dumps({"comments": peak(200, 200) - small, "videos": peak(10_000, 1) - small}))
