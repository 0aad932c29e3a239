"""SYNTHETIC videos: who published what and when, how good it is, and how its counters grow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from trendflow.dataset.table.synthetic import LABEL

SOURCE = f"{LABEL}simulation"
SNAPSHOT_FILE = f"{LABEL}snapshots.parquet"

_BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
_SPAN_DAYS = 500.0
_VIDEOS_PER_CHANNEL = 4
_HORIZONS_H = (168.0, 336.0, 504.0)
_LANGUAGES = ("en", "en", "en", "de", "hi", None)


@dataclass(frozen=True)
class SyntheticVideo:
    """What the simulation knows of a video. `quality` (standard deviation 1) moves content and growth alike.

    The counters after 7, 14 and 21 days follow a power law of age with noise, so that they can be forecast in part.
    """

    number: int
    video_id: str
    channel_id: str
    channel_size: float
    quality: float
    published: datetime
    first_age_hours: float
    duration_seconds: float

    @property
    def first_seen(self) -> datetime:
        return self.published + timedelta(hours=self.first_age_hours)


def synthetic_videos(count: int, seed: int = 0) -> list[SyntheticVideo]:
    """`count` videos of a quarter as many channels. Video `n` does not depend on `count` beyond its channel."""
    return [_video(number, max(count // _VIDEOS_PER_CHANNEL, 1), seed) for number in range(count)]


def synthetic_snapshots(videos: list[SyntheticVideo], seed: int = 0) -> pa.Table:
    """A long table of snapshots (form D): the first one and up to three more per video.

    It has the defects of real ones: missing snapshots, counters that fall, hidden likes, channels without counters.
    """
    rows = [row for video in videos for row in _snapshots(video, np.random.default_rng([seed, 1, video.number]))]
    return pa.Table.from_pylist(rows)


def _video(number: int, channels: int, seed: int) -> SyntheticVideo:
    rng = np.random.default_rng([seed, 0, number])
    channel = int(rng.integers(channels))
    of_channel = np.random.default_rng([seed, 2, channel])
    low, high = ((1.0, 24.0), (24.0, 720.0), (720.0, 2000.0))[int(rng.choice(3, p=(0.5, 0.35, 0.15)))]
    return SyntheticVideo(
        number=number,
        video_id=f"{LABEL}video_{number:06d}",
        channel_id=f"{LABEL}channel_{channel:06d}",
        channel_size=float(of_channel.normal()),
        quality=float(rng.normal()),
        published=_BEGIN + timedelta(seconds=int(rng.uniform(0, _SPAN_DAYS * 86_400))),
        first_age_hours=round(float(rng.uniform(low, high)), 2),
        duration_seconds=round(float(rng.lognormal(4.5, 0.8)), 1),
    )


def _snapshots(video: SyntheticVideo, rng: np.random.Generator) -> list[dict[str, Any]]:
    first = np.exp(6 + 1.2 * video.channel_size + 0.5 * video.quality + 0.55 * np.log(video.first_age_hours))
    views = first * float(rng.lognormal(0, 0.4))
    like_rate = 0.0 if rng.random() < 0.02 else float(np.exp(rng.normal(-3.5, 0.3)))
    static = _static(video, rng)
    ages = [0.0, *(hours + float(rng.normal(0, 3)) for hours in _HORIZONS_H)]
    pace = float(rng.lognormal(0.3 * video.quality, 0.35))
    rows = []
    for step, since in enumerate(ages):
        grown = views * (1 + pace * ((1 + since / video.first_age_hours) ** 0.5 - 1))
        if step > 0 and rng.random() < 0.01:
            grown = views * 0.9
        if step == 0 or rng.random() > 0.05:
            rows.append(
                {
                    "video_id": video.video_id,
                    "snapshot_time": video.first_seen + timedelta(hours=since),
                    "views": float(np.floor(grown)),
                    "likes": float(np.floor(grown * like_rate)),
                    "comments": float(np.floor(grown * like_rate * 0.1)),
                    **static,
                }
            )
    return rows


def _static(video: SyntheticVideo, rng: np.random.Generator) -> dict[str, Any]:
    known = rng.random() > 0.05
    size = float(np.floor(np.exp(8 + 1.5 * video.channel_size)))
    return {
        "publish_time": video.published,
        "channel_id": video.channel_id,
        "channel_title": video.channel_id,
        "category_id": str(int(rng.integers(1, 8))),
        "title": f"{LABEL}video {video.number}" + ("?" if rng.random() < 0.2 else ""),
        "tags": [f"tag{tag}" for tag in range(int(rng.integers(0, 6)))],
        "duration_s": video.duration_seconds,
        "channel_subscribers": size if known else None,
        "channel_views": size * 100 if known else None,
        "channel_videos": float(rng.integers(1, 500)) if known else None,
        "language": _LANGUAGES[int(rng.integers(len(_LANGUAGES)))],
        "definition": "hd",
        "caption": "false",
        "source": SOURCE,
    }
