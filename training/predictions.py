"""The forecasts of a training run as a table: every number of the evaluation can be computed from it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.comparators import COMPARATORS
from training.fold import FoldResult
from training.rows import HEADS, Head, Rows
from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.bundle import read_manifest, verified_file
from trendflow.inference.quantiles import NAMES

PREDICTIONS = "predictions.parquet"
FORECASTS = ("point", *NAMES, *COMPARATORS)
REPAIRS = ("crossed", "rearranged")
"""Where what is shown is not what the quantile models said; see `Served`."""
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("platform_id", "video_id", "channel_id")),
        ("fold", pa.int16()),
        *((name, pa.string()) for name in ("part", "target", "horizon", "age_bucket")),
        ("y", pa.float64()),
        *((name, pa.float64()) for name in FORECASTS),
        *((name, pa.bool_()) for name in REPAIRS),
    ]
)


def predictions_table(rows: Rows, results: Sequence[FoldResult]) -> pa.Table:
    """All test forecasts, by head, fold and row. Values are on the log1p scale of the targets."""
    parts = []
    for position, head in enumerate(HEADS):
        for number, result in enumerate(results):
            if head.name not in result.forecasts:
                continue
            found = result.forecasts[head.name]
            at, size = found.rows, len(found.rows)
            parts.append(
                {
                    "platform_id": rows.platform[at],
                    "video_id": rows.video[at],
                    "channel_id": rows.channel[at],
                    "fold": np.full(size, number, dtype=np.int16),
                    "part": ["test"] * size,
                    "target": [head.target] * size,
                    "horizon": [head.horizon] * size,
                    "age_bucket": rows.bucket[at],
                    "y": rows.y[at, position],
                    "point": found.point,
                    **dict(zip(NAMES, found.served.quantiles.T, strict=True)),
                    **found.comparators,
                    "crossed": found.served.crossed,
                    "rearranged": found.served.rearranged,
                }
            )
    return pa.concat_tables([SCHEMA.empty_table(), *(_table(part) for part in parts)])


def _table(columns: dict[str, object]) -> pa.Table:
    arrays = [pa.array(np.asarray(columns[field.name]).tolist(), field.type) for field in SCHEMA]
    return pa.table(arrays, schema=SCHEMA)


def read_predictions(folder: Path) -> pa.Table:
    """The forecasts of the run in `folder`.

    Raises `artifact_validation_failed` when the file is not the one of its manifest, or has other columns.
    """
    data = verified_file(folder, PREDICTIONS, read_manifest(folder)["predictions_sha256"])
    table = pq.read_table(pa.BufferReader(data))
    if not table.schema.equals(SCHEMA, check_metadata=False):
        raise TrendFlowError("artifact_validation_failed", "The predictions have other columns than expected.")
    return table


@dataclass(frozen=True)
class HeadRows:
    """The forecasts of one head as arrays; `keys` are (platform, video), `repairs` bool by the names of `REPAIRS`."""

    head: Head
    keys: tuple[tuple[str, str], ...]
    channel: np.ndarray
    bucket: np.ndarray
    y: np.ndarray
    forecasts: dict[str, np.ndarray]
    repairs: dict[str, np.ndarray] = field(default_factory=dict)

    def take(self, positions: np.ndarray) -> HeadRows:
        return HeadRows(
            self.head,
            tuple(self.keys[i] for i in positions),
            self.channel[positions],
            self.bucket[positions],
            self.y[positions],
            {name: values[positions] for name, values in self.forecasts.items()},
            {name: values[positions] for name, values in self.repairs.items()},
        )


def by_head(table: pa.Table) -> Iterator[HeadRows]:
    """Heads that were forecast, in the usual order."""
    target, horizon = (np.array(table.column(name).to_pylist()) for name in ("target", "horizon"))
    for head in HEADS:
        at = np.flatnonzero((target == head.target) & (horizon == head.horizon))
        if not len(at):
            continue
        rows = table.take(at)
        yield HeadRows(
            head,
            tuple(zip(rows.column("platform_id").to_pylist(), rows.column("video_id").to_pylist(), strict=True)),
            np.array(rows.column("channel_id").to_pylist()),
            np.array(rows.column("age_bucket").to_pylist()),
            rows.column("y").to_numpy(),
            {name: rows.column(name).to_numpy() for name in FORECASTS},
            {name: rows.column(name).to_numpy() for name in REPAIRS},
        )


def paired(first: HeadRows, second: HeadRows) -> tuple[HeadRows, HeadRows]:
    """The rows both know, in the order of the first."""
    where = {key: position for position, key in enumerate(second.keys)}
    shared = [(i, where[key]) for i, key in enumerate(first.keys) if key in where]
    at = np.array(shared, dtype=np.int64).reshape(-1, 2)
    return first.take(at[:, 0]), second.take(at[:, 1])
