"""Small JPEG pictures of sampled frames for the report, kept in the run's render cache."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from trendflow.presentation.series import spread

if TYPE_CHECKING:
    from trendflow.storage.object_store import ObjectStore

LONG_SIDE = 320
MAX_BYTES = 24_000
FILMSTRIP_FRAMES = 12
MAX_SHOT_FRAMES = 48
DETECTOR_FRAMES = 3
_QUALITIES = (74, 60, 46, 32, 20)
# The name carries what a reader must know, so there is no second file to keep in step.
_NAME = re.compile(r"(\d{6})_(\d{8})_(\d{1,4})x(\d{1,4})\.jpg\Z")


class FrameReader(Protocol):
    """Random access to the union of sampled frames."""

    def read(self, union_indices: np.ndarray) -> np.ndarray:
        """uint8 `[n, H, W, 3]` RGB."""
        ...


@dataclass(frozen=True)
class Thumbnail:
    """A JPEG of one union frame; `time_s` to the millisecond."""

    union_index: int
    time_s: float
    width: int
    height: int
    jpeg: bytes


def encode_jpeg(frame: np.ndarray, long_side: int = LONG_SIDE, max_bytes: int = MAX_BYTES) -> bytes:
    """One RGB uint8 frame `[H, W, 3]` as a baseline JPEG of at most about `max_bytes`, never enlarged."""
    image = Image.fromarray(frame, "RGB")
    scale = long_side / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return jpeg_within(image, max_bytes, _QUALITIES)


def jpeg_within(image: Image.Image, max_bytes: int, qualities: Sequence[int]) -> bytes:
    """The baseline JPEG of the first of `qualities` that takes at most `max_bytes`, else of the last."""
    data = b""
    for quality in qualities:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        data = buffer.getvalue()
        if len(data) <= max_bytes:
            break
    return data


def plan_thumbnails(
    segmenter: Mapping[str, np.ndarray],
    cuts: Mapping[str, np.ndarray],
    objects: Mapping[str, np.ndarray],
    faces: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Union positions worth a picture: an even spread for the filmstrip, the middle of every shot, some detections.

    Takes the arrays of the Segmenter and, where they exist, of cut_detection, core_object_detections and
    core_face_landmarks (empty maps otherwise). Frames the detectors saw are preferred, so that boxes can be drawn.
    """
    times = segmenter["union_timestamps_sec"]
    pool = objects.get("frame_indices", np.arange(len(times)))
    chosen = set(pool[spread(len(pool), FILMSTRIP_FRAMES)].tolist())
    starts, ends = cuts.get("shot_start_time_s", np.empty(0)), cuts.get("shot_end_time_s", np.empty(0))
    for start, end in list(zip(starts, ends, strict=True))[:MAX_SHOT_FRAMES]:
        for candidates in (pool, np.arange(len(times))):
            inside = candidates[(times[candidates] >= start) & (times[candidates] < end)]
            if inside.size:
                chosen.add(int(inside[np.argmin(np.abs(times[inside] - (start + end) / 2))]))
                break
    for arrays, splits in ((objects, "det_row_splits"), (faces, "face_row_splits")):
        if splits in arrays:
            hits = arrays["frame_indices"][np.diff(arrays[splits]) > 0]
            chosen.update(hits[spread(len(hits), DETECTOR_FRAMES)].tolist())
    return np.array(sorted(chosen), dtype=np.int32)


def make_thumbnails(reader: FrameReader, union_indices: np.ndarray, times: np.ndarray) -> list[Thumbnail]:
    """Encode the frames at `union_indices`; `times` are their times in seconds. One frame is in memory at a time."""
    made = []
    for index, time in zip(union_indices.tolist(), times.tolist(), strict=True):
        jpeg = encode_jpeg(reader.read(np.array([index], dtype=np.int32))[0])
        with Image.open(io.BytesIO(jpeg)) as image:
            made.append(Thumbnail(index, round(time, 3), image.width, image.height, jpeg))
    return made


def thumbnail_prefix(run_path: str) -> str:
    return f"render_cache/{run_path}/thumbnails/"


def store_thumbnails(store: ObjectStore, run_path: str, thumbnails: list[Thumbnail]) -> None:
    """Write the pictures into the render cache; the same picture twice is the same object."""
    for thumb in thumbnails:
        name = f"{thumb.union_index:06d}_{round(thumb.time_s * 1000):08d}_{thumb.width}x{thumb.height}.jpg"
        store.put(thumbnail_prefix(run_path) + name, thumb.jpeg)


def load_thumbnails(store: ObjectStore, run_path: str) -> list[Thumbnail]:
    """The stored pictures in time order; none when the cache was cleared. Foreign names are ignored."""
    found = []
    for info in store.list(thumbnail_prefix(run_path)):
        match = _NAME.search(info.key)
        if match:
            index, millis, width, height = (int(group) for group in match.groups())
            found.append(Thumbnail(index, millis / 1000, width, height, store.get(info.key)))
    return sorted(found, key=lambda thumb: thumb.union_index)
