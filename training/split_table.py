"""The split as a file, and the proof read from that file: channels disjoint, times ordered, parts large enough."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.config import SplitConfig
from training.rows import HEADS, MISSING_TIME, NEVER, Rows
from training.splits import GOLDEN, NONE, PARTS, Fold, time_key, to_moment
from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.parquet import parquet_bytes

_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("fold", pa.int16()),
        ("platform_id", pa.string()),
        ("video_id", pa.string()),
        ("channel_id", pa.string()),
        ("time", _TIME),
        ("part", pa.string()),
        ("reason", pa.string()),
        ("embargoed_heads", pa.list_(pa.string())),
        ("golden", pa.bool_()),
    ]
)
_METADATA = b"trendflow_split"


def split_bytes(
    rows: Rows, folds: Sequence[Fold], config: SplitConfig, golden: np.ndarray, about: Mapping[str, Any]
) -> bytes:
    """`splits.parquet`: one row per fold and video, dropped ones with their reason."""
    tables = [_fold_table(rows, number, fold, config, golden) for number, fold in enumerate(folds)]
    note = {
        **about,
        **config.model_dump(mode="json"),
        "not_time_ordered": config.method == "group_kfold",
        "cuts": [None if fold.cuts is None else list(fold.cuts) for fold in folds],
    }
    return parquet_bytes(pa.concat_tables(tables).replace_schema_metadata({_METADATA: canonical_json(note)}))


def _fold_table(rows: Rows, number: int, fold: Fold, config: SplitConfig, golden: np.ndarray) -> pa.Table:
    times = time_key(rows, config)
    names = [head.name for head in HEADS]
    columns = [
        np.full(len(rows), number, dtype=np.int16),
        pa.array(rows.platform.tolist(), pa.string()),
        pa.array(rows.video.tolist(), pa.string()),
        pa.array([name or None for name in rows.channel.tolist()], pa.string()),
        pa.array(times, pa.int64(), mask=times == MISSING_TIME).cast(_TIME),
        pa.array([None if part == NONE else PARTS[part] for part in fold.part], pa.string()),
        pa.array([reason or None for reason in fold.reason.tolist()], pa.string()),
        pa.array([[names[i] for i in np.flatnonzero(row)] for row in fold.embargoed], pa.list_(pa.string())),
        golden,
    ]
    return pa.table(columns, schema=SCHEMA)


def verify_split(path: Path) -> dict[str, Any]:
    """Prove the properties of a written split; returns what was found, fit for a manifest or an asset check.

    Raises `leakage_violation` for a channel in two parts of a fold, a row on the wrong side of a cut, a video twice
    in a fold or tested in two of them, or a golden video in train or val; `artifact_validation_failed` when the file
    is no split; `input_constraint_violated` when a part is smaller than promised.
    """
    table = pq.read_table(path)
    note = (table.schema.metadata or {}).get(_METADATA)
    if note is None or not table.schema.equals(SCHEMA, check_metadata=False):
        raise TrendFlowError("artifact_validation_failed", "The file is no split.")
    about = json.loads(note)
    fold_of = table.column("fold").to_numpy()
    folds = []
    tested: Counter[tuple[str, str]] = Counter()
    for number, cuts in enumerate(about["cuts"]):
        part = table.filter(pa.array(fold_of == number))
        found = _verify_fold(part, number, cuts, about["min_rows"])
        folds.append(found)
        tested.update(_keys(part, "test"))
    twice = [key for key, count in tested.items() if count > 1]
    _refuse(twice, "are tested in two folds", None)
    if sum(tested.values()) < about["min_rows"]:
        raise TrendFlowError(
            "input_constraint_violated",
            f"test has {sum(tested.values())} rows, fewer than {about['min_rows']}.",
            part="test",
        )
    return {
        "method": about["method"],
        "not_time_ordered": about["not_time_ordered"],
        "channels_disjoint": True,
        "times_ordered": not about["not_time_ordered"],
        "golden_excluded": True,
        "n_test": sum(tested.values()),
        "folds": folds,
    }


def _verify_fold(table: pa.Table, number: int, cuts: Sequence[int | None] | None, min_rows: int) -> dict[str, Any]:
    part = np.array([value or "" for value in table.column("part").to_pylist()])
    channel = np.array([value or "" for value in table.column("channel_id").to_pylist()])
    times = table.column("time").cast(pa.int64())
    micros = times.fill_null(MISSING_TIME).to_numpy()
    inside = part != ""
    keys = Counter(zip(table.column("platform_id").to_pylist(), table.column("video_id").to_pylist(), strict=True))
    _refuse([key for key, count in keys.items() if count > 1], "stand twice", number)
    channels = {name: set(channel[part == name]) for name in PARTS}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        _refuse(sorted(channels[first] & channels[second]), f"are channels of both {first} and {second}", number)
    _refuse(np.flatnonzero(inside & ((channel == "") | (micros == MISSING_TIME))), "have no channel or time", number)
    golden = table.column("golden").to_numpy()
    _refuse(np.flatnonzero(golden & np.isin(part, PARTS[:2])), f"are of a {GOLDEN} and would be trained on", number)
    if cuts is not None:
        t_val, t_test, end = cuts
        wrong = (
            ((part == "train") & (micros >= t_val))
            | ((part == "val") & ((micros < t_val) | (micros >= t_test)))
            | ((part == "test") & ((micros < t_test) | (micros >= (NEVER if end is None else end))))
        )
        _refuse(np.flatnonzero(wrong), "are on the wrong side of a cut", number)
    sizes = {name: int((part == name).sum()) for name in PARTS}
    for name in PARTS[:2]:
        if sizes[name] < min_rows:
            raise TrendFlowError(
                "input_constraint_violated",
                f"{name} of fold {number} has {sizes[name]} rows, fewer than {min_rows}.",
                part=name,
            )
    reasons = Counter(reason for reason in table.column("reason").to_pylist() if reason)
    return {
        "fold": number,
        "T_val": _moment(cuts, 0),
        "T_test": _moment(cuts, 1),
        "T_end": _moment(cuts, 2),
        "n": sizes,
        "n_channels": {name: len(channels[name]) for name in PARTS},
        "time_range": {name: _range(micros[part == name]) for name in PARTS},
        "dropped": dict(sorted(reasons.items())),
    }


def _keys(table: pa.Table, part: str) -> list[tuple[str, str]]:
    columns = (table.column(name).to_pylist() for name in ("platform_id", "video_id", "part"))
    return [(platform, video) for platform, video, found in zip(*columns, strict=True) if found == part]


def _moment(cuts: Sequence[int | None] | None, position: int) -> str | None:
    value = None if cuts is None else cuts[position]
    return None if value is None else to_moment(value).isoformat()


def _range(micros: np.ndarray) -> list[str] | None:
    return [to_moment(int(micros.min())).isoformat(), to_moment(int(micros.max())).isoformat()] if len(micros) else None


def _refuse(found: Any, what: str, fold: int | None) -> None:
    if len(found):
        where = "" if fold is None else f" in fold {fold}"
        raise TrendFlowError("leakage_violation", f"{len(found)} rows or channels {what}{where}.", count=len(found))
