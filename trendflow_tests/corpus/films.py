"""Ten short clips that differ in everything a feature can measure, each with the text that would come with it.

Eight show real files, whole or in part. Two are SYNTHETIC: a trailer made by formula and a vlog edited from real
pictures. All texts are SYNTHETIC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from trendflow.contracts.video_document import Transcript, TranscriptSegment, VideoDocument
from trendflow_tests.components.cuts.scenes import picture
from trendflow_tests.corpus.footage import Footage, at_rate, cropped, footage, repeated, resized

RATE = 48000
HEIGHT, WIDTH, FPS = 180, 320, 24
WEBCAM = 114, 84, 256, 188
"""Where the screencast shows the man: left, top, width, height in pixels."""


@dataclass(frozen=True)
class Film:
    path: Path
    document: VideoDocument


def make_films(data_dir: Path, folder: Path) -> Iterator[tuple[str, Film]]:
    """Name and film, written to `folder` one after the other."""
    video = data_dir / "video"
    screencast = video / "hello_face_speech.mp4"
    makers: dict[str, Callable[[Path], Path]] = {
        # A man speaks beside a terminal in one shot.
        "screencast": lambda _: screencast,
        # Animation with music: two hard cuts, every third frame dropped.
        "animation": lambda path: footage(video / "bbb_vfr_drop3.mp4", 9.0, 17.5).write(path),
        # Narration over footage from space, one cut.
        "documentary": lambda path: footage(video / "nasa_two_streams.mp4", 3.0, 11.0).write(path),
        # A fixed camera looks at people; no sound.
        "doorway": lambda path: footage(video / "people_139s.mp4", 60.0, 72.0, height=240).write(path),
        # A fixed camera looks down at cars for long; the sound is digital silence.
        "road": lambda path: footage(video / "cars_topdown_30s.mp4", 0.0, 19.0, height=240).write(path),
        "fades": lambda _: video / "fades.mp4",
        "damaged": lambda _: video / "damaged_nal.mp4",
        # Colour bars in high dynamic range; the file lasts two seconds.
        "high_dynamic_range": lambda path: repeated(video / "bt2020_10bit.mp4", path, times=3),
        "synthetic_vlog": lambda path: _vlog(footage(screencast, region=WEBCAM)).write(path),
        "synthetic_trailer": lambda path: _trailer(footage(screencast, 2.0, 6.0, height=HEIGHT)).write(path),
    }
    for name, make in makers.items():
        yield name, Film(make(folder / f"{name}.mp4"), DOCUMENTS[name])


def _vlog(webcam: Footage) -> Footage:
    """SYNTHETIC, portrait: a title card, the man of the screencast near and far, an end card; speech over a beat."""
    assert webcam.audio is not None

    def framed(start_s: float, stop_s: float, left: int, width: int, top: int, height: int) -> np.ndarray:
        return resized(cropped(webcam.between(start_s, stop_s), left, top, width, height), 480, 270)

    near, far = (70, 74, 20, 132), (44, 106, 0, 188)
    shots = [
        _card("DAY 3", (200, 40, 60)),
        framed(0.0, 2.2, *far),
        _graded(framed(3.0, 4.5, *near), 1.25, 12),
        framed(4.5, 6.2, *far),
        _graded(framed(6.2, 8.3, *near), 0.6, -10),
        _card("BYE", (20, 60, 180)),
    ]
    speech = np.concatenate([np.zeros((RATE, webcam.audio.shape[1]), np.float32), 0.3 * webcam.audio])
    beat = 0.3 * _beat(len(speech) / RATE, first_bpm=92, faster_per_s=0)
    return at_rate(np.concatenate(shots), 30, (speech + beat[:, None]).astype(np.float32))


def _card(text: str, colour: tuple[int, int, int]) -> np.ndarray:
    """A second of white text on one colour."""
    card = np.full((480, 270, 3), colour, np.uint8)
    cv2.putText(card, text, (40, 240), cv2.FONT_HERSHEY_DUPLEX, 2.0, (255, 255, 255), 3)
    return np.repeat(card[None], 30, axis=0)


def _graded(pictures: np.ndarray, gain: float, warmth: int) -> np.ndarray:
    return np.clip(pictures * gain + np.array([warmth, 0, -warmth]), 0, 255).astype(np.uint8)


def _trailer(screencast: Footage) -> Footage:
    """SYNTHETIC: a whip pan, shots of many lengths, a jump cut, a flash, a zoom, a dissolve, a fade, a rising beat."""
    before, after = screencast.pictures[:30], _graded(_inset_moved(screencast.pictures[40:100], down=40), 1.2, 15)
    shots = [
        _move(1, 24, pan=0.7 / FPS),
        *(_move(seed, length) for seed, length in ((2, 5), (3, 9), (4, 17))),
        before.astype(np.float32),
        after.astype(np.float32),
        _move(7, 42, zoom=0.3 / FPS),
    ]
    shots[5][30:32] = np.minimum(shots[5][30:32] + 80.0, 255)
    first, second = _move(8, 36), _move(9, 60)
    weight = np.linspace(0, 1, 18)[:, None, None, None]
    blend = first[-18:] * (1 - weight) + second[:18] * weight
    fading = second[18:] * np.clip(np.arange(42, 0, -1) / 18, 0, 1)[:, None, None, None]
    pictures = np.concatenate([*shots, first[:-18], blend, fading, np.zeros((6, HEIGHT, WIDTH, 3))])
    beat = 0.9 * _beat(len(pictures) / FPS, first_bpm=100, faster_per_s=5)
    stereo = np.clip(np.stack([beat, 0.5 * beat], axis=1), -1, 1).astype(np.float32)
    return at_rate(pictures.astype(np.uint8), FPS, stereo)


def _inset_moved(pictures: np.ndarray, down: int) -> np.ndarray:
    """The screencast at 320x180 with the webcam picture some pixels lower."""
    moved = pictures.copy()
    moved[:, 18:70, 26:94] = pictures[:, 74:126, 26:94]
    moved[:, 18 + down : 70 + down, 26:94] = pictures[:, 18:70, 26:94]
    return moved


def _beat(seconds: float, first_bpm: float, faster_per_s: float) -> np.ndarray:
    """Bursts of noise over soft noise, float64 `[n]`; the tempo rises by so many beats per minute in each second."""
    rng = np.random.default_rng(3)
    audio = 0.01 * rng.standard_normal(round(seconds * RATE))
    hit = rng.standard_normal(3000) * np.linspace(1, 0, 3000) ** 2
    at_s = 0.0
    while at_s < seconds - 0.1:
        start = round(at_s * RATE)
        audio[start : start + len(hit)] += hit
        at_s += 60 / (first_bpm + faster_per_s * at_s)
    return audio


def _move(seed: int, frames: int, pan: float = 0.002, zoom: float = 0.0) -> np.ndarray:
    """A window that glides over a picture by `pan` widths and enlarges it by `zoom` per frame, float32."""
    wide = cv2.resize(picture(seed), (6 * WIDTH, 3 * HEIGHT), interpolation=cv2.INTER_CUBIC)
    shown = []
    for k in range(frames):
        scale = np.exp(zoom * k)
        left, top = WIDTH * (1 + pan * k), HEIGHT * 1.0
        matrix = np.array(
            [
                [scale, 0, WIDTH / 2 - scale * (left + WIDTH / 2)],
                [0, scale, HEIGHT / 2 - scale * (top + HEIGHT / 2)],
            ]
        )
        shown.append(cv2.warpAffine(wide, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR))
    return np.stack(shown).astype(np.float32)


def _speech(
    words: int, end_s: float, confidences: tuple[float | None, ...] = (None,), vocabulary: int = 60
) -> Transcript:
    """SYNTHETIC: `words` words in as many segments as there are confidences, with a pause after each."""
    spoken = [f"word{k * k % vocabulary}" for k in range(words)]
    count = len(confidences)
    segments = tuple(
        TranscriptSegment(k * end_s / count, (k + 0.7) * end_s / count, " ".join(spoken[k::count]), confidence)
        for k, confidence in enumerate(confidences)
    )
    return Transcript("platform", "2026-01-01T00:00:00Z", segments)


DOCUMENTS = {
    "screencast": VideoDocument(
        title="How to list a directory in 8 seconds",
        description="A first look at the shell. More on https://example.org #linux #shell",
        tags=("#linux", "#terminal"),
        transcript=_speech(12, 8.0, (0.9, 0.7)),
    ),
    "animation": VideoDocument(
        title="BIG BUCK BUNNY 🐰🐰 you won't believe what he does!",
        description="A rabbit and three bullies. " * 60,
        transcript=_speech(160, 8.0, (0.5, None), vocabulary=40),
    ),
    "documentary": VideoDocument(
        title="Why does the Earth glow at night?",
        description="Seen from orbit, by @example and @another. https://example.org/a https://example.org/b",
        tags=("#space", "#earthatnight"),
        transcript=_speech(120, 5.0, (0.8, 0.8, 0.6), vocabulary=90),
    ),
    "doorway": VideoDocument(title="People at a door", description="People come and go; a fixed camera."),
    "road": VideoDocument(title="Cars, cars and more cars"),
    "fades": VideoDocument(description="Black, white, black. #test"),
    "damaged": VideoDocument(),
    "high_dynamic_range": VideoDocument(title="#hdr #rec2020", description="#hdr"),
    "synthetic_vlog": VideoDocument(title="MY DAY 3: this has GONE WRONG!!! 😱", tags=("#vlog",)),
    "synthetic_trailer": VideoDocument(
        title="Trailer", description="Made by formula. " * 200, transcript=_speech(30, 10.0)
    ),
}
