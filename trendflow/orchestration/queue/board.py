"""What workers write into the broker beside the messages: who lives, who works on which run, what was given up.

Readable by anybody who reaches the broker, without Celery and without Dagster. Times are those of the broker, so clocks
of hosts need not agree.

Deliveries are counted in the one step that makes a worker the holder of a run, by the broker that delivers: a count
that is lost with the broker is lost together with the messages it was about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import redis

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.queue.names import DEVICE_QUEUES, PRIORITIES, DeviceQueue, Priority, queue_name

BEATS = "trendflow:beats"
_WORKERS = "trendflow:workers"
_LOST = "trendflow:lost"
_HOLDERS = "trendflow:holders"
_DELIVERIES = "trendflow:deliveries"
_DEAD = "trendflow:dead_letters"
_UNACKED = "unacked"
"""kombu's key: messages by their tag."""

_KEEP_LOST_S = 7 * 86400
_MAX_DEAD = 10_000

# KEYS beats workers lost holders deliveries, ARGV worker description run. 0: the worker was declared lost and may not
# come back. A broker that has never heard of a worker at work has lost its data, and must not give the run to another.
_BEAT = """
if redis.call('ZSCORE', KEYS[3], ARGV[1]) then return 0 end
if ARGV[3] ~= '' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('HSETNX', KEYS[4], ARGV[3], ARGV[1])
  redis.call('HSETNX', KEYS[5], ARGV[3], 1)
end
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], now[1] + now[2] / 1000000, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
"""
# KEYS holders deliveries beats, ARGV run worker. The holder is told only while it lives.
_CLAIM = """
local holder = redis.call('HGET', KEYS[1], ARGV[1])
if holder and holder ~= ARGV[2] and redis.call('ZSCORE', KEYS[3], holder) then return {0, holder} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {redis.call('HINCRBY', KEYS[2], ARGV[1], 1), ''}
"""
# KEYS deliveries holders beats unacked queue..., ARGV run. A message tells its run in plain text.
_HAS = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
local holder = redis.call('HGET', KEYS[2], ARGV[1])
if holder and redis.call('ZSCORE', KEYS[3], holder) then return 1 end
local function tells(messages)
  for _, message in ipairs(messages) do
    if string.find(message, ARGV[1], 1, true) then return true end
  end
end
if tells(redis.call('HVALS', KEYS[4])) then return 1 end
for number = 5, #KEYS do
  if tells(redis.call('LRANGE', KEYS[number], 0, -1)) then return 1 end
end
return 0
"""
# KEYS holders deliveries, ARGV run.
_WITHDRAW = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 or redis.call('HGET', KEYS[2], ARGV[1]) ~= '0' then return 0 end
return redis.call('HDEL', KEYS[2], ARGV[1])
"""
# KEYS holders, ARGV run worker.
_LET_GO = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
# KEYS holders deliveries, ARGV run worker. What ended meanwhile has no count, and must not get one again.
_UNCOUNT = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0) < 1 then return 0 end
redis.call('HINCRBY', KEYS[2], ARGV[1], -1)
return 1
"""


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker says of itself.

    `held` are the tags of messages it has taken and not given back, `run` is the one that it works on.
    """

    worker: str
    host: str
    pid: int
    queues: tuple[str, ...]
    held: tuple[str, ...] = ()
    run: str | None = None


@dataclass(frozen=True)
class SeenWorker:
    """A worker as the broker knows it; `beat_at` in seconds of the broker's clock."""

    facts: WorkerFacts
    beat_at: float
    silent_s: float


@dataclass(frozen=True)
class Claim:
    """The n-th delivery of a run, or 0 and the living worker that works on it."""

    delivery: int
    holder: str | None


class Board:
    """The board of one broker. Raises `storage_unavailable` when the broker does not answer."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._redis = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, decode_responses=True
        )
        self._beat = self._redis.register_script(_BEAT)
        self._claim = self._redis.register_script(_CLAIM)
        self._has = self._redis.register_script(_HAS)
        self._withdraw = self._redis.register_script(_WITHDRAW)
        self._let_go = self._redis.register_script(_LET_GO)
        self._uncount = self._redis.register_script(_UNCOUNT)

    def close(self) -> None:
        self._redis.close()

    def beat(self, facts: WorkerFacts) -> bool:
        """Say that a worker lives; False when the others have given it up, and then it must end."""
        with _answers():
            keys = [BEATS, _WORKERS, _LOST, _HOLDERS, _DELIVERIES]
            return bool(self._beat(keys, [facts.worker, json.dumps(asdict(facts)), facts.run or ""]))

    def leave(self, worker: str) -> None:
        """A worker ends in good order."""
        with _answers():
            pipe = self._redis.pipeline()
            pipe.zrem(BEATS, worker)
            pipe.hdel(_WORKERS, worker)
            pipe.execute()

    def declare_lost(self, worker: str) -> None:
        """A worker is silent: what it held is free, and should it wake up it learns that from its next beat."""
        with _answers():
            now = self._now()
            pipe = self._redis.pipeline()
            pipe.zadd(_LOST, {worker: now})
            pipe.zremrangebyscore(_LOST, 0, now - _KEEP_LOST_S)
            pipe.zrem(BEATS, worker)
            pipe.hdel(_WORKERS, worker)
            pipe.execute()

    def workers(self) -> list[SeenWorker]:
        """Workers that are not given up, silent or not, by name."""
        with _answers():
            pipe = self._redis.pipeline()
            pipe.zrange(BEATS, 0, -1, withscores=True)
            pipe.hgetall(_WORKERS)
            beats, texts = pipe.execute()
            now = self._now()
        found = [(_facts(texts[worker]), float(at)) for worker, at in beats if worker in texts]
        return sorted(
            (SeenWorker(facts, at, max(0.0, now - at)) for facts, at in found), key=lambda seen: seen.facts.worker
        )

    def now(self) -> float:
        """Seconds of the broker's clock."""
        with _answers():
            return self._now()

    def uptime_s(self) -> float:
        """Since when the broker runs; nobody could beat before."""
        with _answers():
            return float(self._redis.info("server")["uptime_in_seconds"])

    def expect(self, run: str) -> None:
        """A message of the run is about to be published."""
        with _answers():
            self._redis.hsetnx(_DELIVERIES, run, 0)

    def is_expected(self, run: str) -> bool:
        """Whether a message of the run is somewhere between its launcher and its end."""
        with _answers():
            return bool(self._redis.hexists(_DELIVERIES, run))

    def has(self, run: str) -> bool:
        """Whether the run will come to its end by itself: a living worker has it, or a message that is there.

        False for one that is expected when its launcher died before it published, or a worker with its message.
        """
        queues = [queue_name(device, priority) for device in DEVICE_QUEUES for priority in PRIORITIES]
        with _answers():
            return bool(self._has([_DELIVERIES, _HOLDERS, BEATS, _UNACKED, *queues], [run]))

    def withdraw(self, run: str) -> None:
        """A message could not be published. Nothing when there is an earlier one that was delivered."""
        with _answers():
            self._withdraw([_HOLDERS, _DELIVERIES], [run])

    def let_go(self, run: str, worker: str) -> None:
        """The worker gives the run back as it is; nothing when another one has it."""
        with _answers():
            self._let_go([_HOLDERS], [run, worker])

    def claim(self, run: str, worker: str) -> Claim:
        """Count a delivery and make the worker the holder of the run, unless another living one is."""
        with _answers():
            delivery, holder = self._claim([_HOLDERS, _DELIVERIES, BEATS], [run, worker])
        return Claim(int(delivery), holder or None)

    def running(self) -> dict[str, str]:
        """The worker of every run that was begun and has not ended, by Dagster run id."""
        with _answers():
            return {str(run): str(worker) for run, worker in self._redis.hgetall(_HOLDERS).items()}

    def uncount(self, run: str, worker: str) -> None:
        """The delivery of a run to this worker does not count: the run is not to blame. Nothing when it has ended."""
        with _answers():
            self._uncount([_HOLDERS, _DELIVERIES], [run, worker])

    def release(self, run: str) -> None:
        """The run has ended."""
        with _answers():
            pipe = self._redis.pipeline()
            pipe.hdel(_HOLDERS, run)
            pipe.hdel(_DELIVERIES, run)
            pipe.execute()

    def bury(self, run: str, error_code: str, deliveries: int) -> None:
        """Put a run that was given up on the dead-letter list, newest first."""
        letter = {"run": run, "error_code": error_code, "deliveries": deliveries, "at": self.now()}
        with _answers():
            pipe = self._redis.pipeline()
            pipe.lpush(_DEAD, json.dumps(letter))
            pipe.ltrim(_DEAD, 0, _MAX_DEAD - 1)
            pipe.execute()

    def dead_letters(self) -> list[dict[str, Any]]:
        """`run`, `error_code`, `deliveries` and `at` (broker's clock, s) of what was given up, newest first."""
        with _answers():
            return [json.loads(letter) for letter in self._redis.lrange(_DEAD, 0, -1)]

    def waiting(self) -> dict[tuple[DeviceQueue, Priority], int]:
        """Messages that no worker has taken, by queue."""
        names = [(device, priority) for device in DEVICE_QUEUES for priority in PRIORITIES]
        with _answers():
            pipe = self._redis.pipeline()
            for device, priority in names:
                pipe.llen(queue_name(device, priority))
            return dict(zip(names, map(int, pipe.execute()), strict=True))

    def unacknowledged(self) -> list[str]:
        """Tags of the messages that workers have taken, the oldest first."""
        return [tag for tag, _ in self.taken()]

    def taken(self) -> list[tuple[str, float]]:
        """The same with the moment of taking by the taker's clock: another one for each time that it is taken."""
        with _answers():
            found: Any = self._redis.zrange("unacked_index", 0, -1, withscores=True)  # kombu's key
        return [(str(tag), float(at)) for tag, at in found]

    def _now(self) -> float:
        seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6


def living(workers: Sequence[SeenWorker], silent_s: float) -> list[SeenWorker]:
    """Those that were heard within `silent_s`."""
    return [seen for seen in workers if seen.silent_s <= silent_s]


def _facts(text: str) -> WorkerFacts:
    found = json.loads(text)
    # Workers of two releases may share a broker while one replaces the other.
    known = {field.name: found[field.name] for field in fields(WorkerFacts) if field.name in found}
    return WorkerFacts(**{**known, "queues": tuple(found["queues"]), "held": tuple(found["held"])})


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as exc:
        raise TrendFlowError(
            "storage_unavailable", "The broker of the queue does not answer.", type=type(exc).__name__
        ) from exc
