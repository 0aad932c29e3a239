"""The inputs at the edge of what a video can be, as files.

All but the shipped clip itself are SYNTHETIC: made by formula, or pictures of that clip under a sound made by formula.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trendflow.contracts.video_document import Transcript, TranscriptSegment, VideoDocument
from trendflow_tests.corpus.footage import footage, resized
from trendflow_tests.media.clips import Clip, colour_pattern

SECONDS = 5.0
FRAMES = 25
LAST_S = 0.04
"""How long the muxer lets the last picture last."""
RATE = 48000
HEIGHT, WIDTH = 114, 148
FACE = 94, 84, 296, 228
"""Where the shipped clip shows the man: left, top, width, height in pixels."""

TEXT = VideoDocument(
    title="How to list a directory in 8 seconds 🐚",
    description="A first look at the shell. More on https://example.org #linux " * 40,
    tags=("#linux", "#terminal"),
    transcript=Transcript("platform", "2026-01-01T00:00:00Z", (TranscriptSegment(0.5, 4.0, "this is a shell", 0.9),)),
)


@dataclass(frozen=True)
class Film:
    """A file, the text that comes with it, and how it is processed.

    `pictures` are the least and the wanted number of sampled frames of every component that looks at pictures. The
    models take most of the time, and twelve frames reach what four hundred do.
    """

    path: Path
    document: VideoDocument = TEXT
    pictures: tuple[int, int] = (8, 12)
    min_duration_sec: float = 5.0


def make_film(name: str, sample_video: Path, folder: Path) -> Film:
    """The film of that name; its file lies in `folder`."""
    return FILMS[name](Studio(sample_video, folder / f"{name}.mkv"))


@dataclass(frozen=True)
class Studio:
    """Writes one film to `path`."""

    sample_video: Path
    path: Path

    def film(
        self,
        pictures: Iterable[np.ndarray],
        sound: np.ndarray | None,
        *,
        times_s: Sequence[float] | np.ndarray | None = None,
        rate: int = RATE,
    ) -> Film:
        """`pictures` uint8 `[H, W, 3]`, by default 25 of them in 5 s; `sound` float32 `[n, channels]`.

        Both are stored without loss: a lossy codec moves still pictures and smooths what clips.
        """
        times_s = evenly(FRAMES, SECONDS) if times_s is None else times_s
        ticks = np.round(1000 * np.asarray(times_s)).astype(int).tolist()
        options = {"preset": "ultrafast", "qp": "0"}
        clip = Clip(pictures, ticks, options=options, audio=sound, audio_rate=rate, audio_codec="pcm_s16le")
        return Film(clip.write(self.path))

    def talking_head(self, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
        """The man of the shipped clip for 5 s, uint8 `[25, height, width, 3]`."""
        return resized(_face_pictures(self.sample_video), height, width)


@functools.cache
def _face_pictures(sample_video: Path) -> np.ndarray:
    shown = footage(sample_video, 0.0, SECONDS, region=FACE)
    return shown.pictures[np.searchsorted(shown.times_s, evenly(FRAMES, SECONDS))]


def evenly(count: int, seconds: float) -> np.ndarray:
    """Times of `count` pictures of a film that lasts exactly so long, float64 `[count]`."""
    return np.linspace(0.0, seconds - LAST_S, count)


def beat(seconds: float = SECONDS, rate: int = RATE, until_s: float = np.inf) -> np.ndarray:
    """A tone of 440 Hz that begins twice a second, float32 `[n, 1]`; digital silence from `until_s` on."""
    t = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * 440 * t) * (np.mod(t, 0.5) < 0.1) * (t < until_s)
    return tone.astype(np.float32)[:, None]


def saturated_tone() -> np.ndarray:
    """A tone of 200 Hz, twenty times too loud: all but square."""
    t = np.arange(round(SECONDS * RATE)) / RATE
    return np.clip(20 * np.sin(2 * np.pi * 200 * t), -1, 1).astype(np.float32)[:, None]


def _flat(value: int) -> np.ndarray:
    return np.full((FRAMES, HEIGHT, WIDTH, 3), value, dtype=np.uint8)


def _twenty_minutes(studio: Studio) -> Film:
    """1200 pictures, one per second, that change slowly but for one cut in the middle."""
    pictures = (colour_pattern(36, 64, second / 200)[:: 1 if second < 600 else -1] for second in range(1200))
    sound = beat(1200, rate=8000, until_s=120)
    return replace(studio.film(pictures, sound, times_s=evenly(1200, 1200.0), rate=8000), pictures=(8, 60))


def _one_frame(studio: Studio) -> Film:
    """Below the shortest video the product takes; a deployment may lower that limit."""
    return replace(studio.film(studio.talking_head()[:1], beat(0.1), times_s=[0.0]), min_duration_sec=1e-3)


def _variable_rate(studio: Studio) -> Film:
    gaps = np.tile([1.0, 5.0, 3.0], FRAMES)[: FRAMES - 1]
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    return studio.film(studio.talking_head(), beat(), times_s=times * (SECONDS - LAST_S) / times[-1])


def _ordinary(studio: Studio) -> Film:
    """The whole shipped clip with a beat under the voice, and more samples than the largest batch tried on it."""
    shown = footage(studio.sample_video, height=320)
    assert shown.audio is not None
    speech = shown.audio[: round(shown.times_s[-1] * RATE)]
    sound = 0.5 * speech + beat(len(speech) / RATE)
    return replace(studio.film(shown.pictures, sound, times_s=shown.times_s), pictures=(33, 40))


FILMS: dict[str, Callable[[Studio], Film]] = {
    "ordinary": _ordinary,
    "black": lambda studio: studio.film(_flat(0), beat()),
    "white": lambda studio: studio.film(_flat(255), beat()),
    "still": lambda studio: studio.film(np.repeat(studio.talking_head()[:1], FRAMES, axis=0), beat()),
    "five_seconds": lambda studio: studio.film(studio.talking_head(), beat()),
    "twenty_minutes": _twenty_minutes,
    "one_frame": _one_frame,
    "two_frames": lambda studio: studio.film(studio.talking_head()[:2], beat(), times_s=evenly(2, SECONDS)),
    "one_sample": lambda studio: replace(studio.film(studio.talking_head(), beat()), pictures=(1, 1)),
    "portrait": lambda studio: studio.film(studio.talking_head(160, 208)[:, :, 59:149], beat()),
    "four_by_two_pixels": lambda studio: studio.film(studio.talking_head(2, 4), beat()),
    "variable_rate": _variable_rate,
    "neither_sound_nor_text": lambda studio: replace(
        studio.film(studio.talking_head(), None), document=VideoDocument()
    ),
    "digital_silence": lambda studio: studio.film(studio.talking_head(), 0 * beat()),
    "hard_clipping": lambda studio: studio.film(studio.talking_head(), saturated_tone()),
    "mono_8_khz": lambda studio: studio.film(studio.talking_head(), beat(rate=8000), rate=8000),
}
