"""SYNTHETIC training data: videos that do not exist, grown by a known rule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from training.data import TrainingData
from training.rows import HEADS, Rows
from trendflow.contracts.schema import SchemaRegistry
from trendflow.dataset.snapshots.report import ImportReport
from trendflow.dataset.snapshots.tables import COUNTERS, SNAPSHOTS_V1, VIDEOS_V1, SnapshotSet, empty_metadata
from trendflow.dataset.table.build import BuildOptions, build_dataset
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.files import write_dataset
from trendflow.dataset.targets import build_targets

START = datetime(2025, 1, 1, tzinfo=UTC)
CONTENT = {"visual": 3, "audio": 2, "text": 1}
"""Content columns per family; the first visual one carries signal, the others are noise."""


def content_name(family: str, index: int) -> str:
    return f"synthetic_{family}__value_{index}__value"


def training_table(n: int = 400, channels: int = 80, seed: int = 0, content: bool = False) -> pa.Table:
    """A table with the columns of `dataset.parquet`. Growth depends on views_0, age and the first visual column."""
    rng = np.random.default_rng(seed)
    published = np.sort(rng.uniform(0, 300, n))
    age = rng.exponential(200, n)
    views = np.exp(rng.normal(6, 2, n)).round()
    likes = (views * 0.03).round()
    columns: dict[str, Any] = {
        "platform_id": ["youtube"] * n,
        "video_id": [f"SYNTHETIC_{i:05d}" for i in range(n)],
        "channel_id": [f"SYNTHETIC_c{c}" for c in rng.integers(0, channels, n)],
        "publish_time": pa.array(
            [START + timedelta(days=float(day)) for day in published], pa.timestamp("us", tz="UTC")
        ),
        "t0": pa.array(
            [START + timedelta(days=float(day), hours=float(h)) for day, h in zip(published, age, strict=True)],
            pa.timestamp("us", tz="UTC"),
        ),
        "video_age_hours_at_snapshot1": age,
        "age_bucket": np.select([age < 24, age <= 720], ["<24h", "1-30d"], ">30d"),
        "views_0": views,
        "likes_0": likes,
        "comments_0": np.where(rng.random(n) < 0.3, np.nan, likes * 0.1),
        "duration_seconds": rng.uniform(10, 900, n),
        "category_id": [str(c) if c else None for c in rng.integers(0, 6, n)],
        "x0_views": views,
        "x0_likes": likes,
    }
    signal = rng.normal(size=n)
    if content:
        for family, count in CONTENT.items():
            for index in range(count):
                columns[content_name(family, index)] = rng.normal(size=n)
        columns[content_name("visual", 0)] = signal
    for head in HEADS:
        start = views if head.target == "views" else likes
        growth = 0.7 * np.log1p(start) - 0.3 * np.log1p(age) + 0.05 * head.horizon_days
        y = np.maximum(growth + (1.5 * signal if content else 0) + rng.normal(0, 0.4, n), 0)
        mask = rng.random(n) < 0.9
        columns[f"target_{head.name}"] = np.where(mask, y, np.nan)
        columns[f"mask_{head.name}"] = mask
        columns[f"observed_hours_{head.name}"] = np.where(mask, head.horizon_days * 24.0, np.nan)
    return pa.table(columns)


def training_data(table: pa.Table) -> TrainingData:
    """What `TrainingData.of` makes of a dataset with this table."""
    families = {content_name(family, i): family for family, count in CONTENT.items() for i in range(count)}
    metadata = ("video_age_hours_at_snapshot1", "views_0", "likes_0", "comments_0", "duration_seconds", "category_id")
    features = tuple(sorted([*metadata, *(name for name in families if name in table.column_names)]))
    return TrainingData(
        table=table,
        rows=Rows.of(table),
        metadata={},
        features=features,
        categorical=("category_id",),
        family={name: families.get(name, "metadata") for name in features},
        fingerprint="0" * 64,
        synthetic=True,
    )


def snapshot_set(n: int = 400, channels: int = 400, seed: int = 0) -> SnapshotSet:
    """Five snapshots per video; counters grow by the rule of `training_table`."""
    table = training_table(n, channels, seed).to_pylist()
    snapshots: list[dict[str, Any]] = []
    videos: list[dict[str, Any]] = []
    for number, row in enumerate(table):
        key = {"platform_id": "youtube", "video_id": row["video_id"]}
        videos.append(
            {
                **empty_metadata(),
                **key,
                "publish_time": row["publish_time"],
                "channel_id": row["channel_id"],
                "category_id": row["category_id"],
                "title": "SYNTHETIC title",
                "duration_seconds": row["duration_seconds"],
                "captured_at": row["t0"],
                "source": "SYNTHETIC_source",
            }
        )
        for days in (0, 7, 14, 21):
            counters = dict.fromkeys(COUNTERS, float("nan")) | {"channel_subscribers": 100.0 + number}
            for target in ("views", "likes"):
                grown = row.get(f"target_{target}_{days}d")
                counters[target] = row[f"x0_{target}"] + (np.expm1(grown).round() if grown and grown > 0 else 0.0)
            when = {"snapshot_time": row["t0"] + timedelta(days=days), "source": "SYNTHETIC_source"}
            snapshots.append({**key, **counters, **when, "source_row": len(snapshots)})
    return SnapshotSet(
        pa.Table.from_pylist(snapshots, schema=SNAPSHOTS_V1),
        pa.Table.from_pylist(videos, schema=VIDEOS_V1),
        ImportReport(),
    )


def write_synthetic_dataset(parent: Path, n: int = 400, seed: int = 0) -> Path:
    """A dataset folder without content, written by the program."""
    snapshots = snapshot_set(n, seed=seed)
    spec = FeatureSpec.load().without_content()
    options = BuildOptions(allow_synthetic=True)
    built = build_dataset(snapshots, build_targets(snapshots), spec, options=options)
    return write_dataset(built, parent, SchemaRegistry.load())
