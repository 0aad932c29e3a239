"""The same content in other wrappings: orientation, pixel aspect, time stamps, containers, audio offsets."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.frames_dir import FramesDir
from trendflow.media.limits import MediaLimits
from trendflow.media.sampling import ComponentSampling
from trendflow.media.segmenter import Segmented, probe
from trendflow_tests.media.clips import (
    Clip,
    colour_pattern,
    features,
    numbered_clip,
    numbered_picture,
    read_number,
    stored_frames,
)

Run = Callable[..., Segmented]
FEW = [ComponentSampling("a", 5, 10, 40, "primary")]


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(np.int16) - b).mean())


def pattern_clip(
    height: int, width: int, turn: Callable[[np.ndarray], np.ndarray] = lambda p: p, **changes: Any
) -> Clip:
    pictures = (turn(colour_pattern(height, width, phase=k / 30)) for k in range(130))
    return Clip(pictures, [40 * k for k in range(130)], **changes)


@pytest.mark.parametrize("ccw", [90, 180, 270])
def test_a_rotated_copy_equals_the_upright_one(ccw: int, tmp_path: Path, run_segmenter: Run) -> None:
    upright = pattern_clip(144, 256).write(tmp_path / "upright.mp4")
    # Stored turned clockwise, to be turned back counter-clockwise by the player.
    turned = pattern_clip(144, 256, lambda p: np.rot90(p, -ccw // 90), rotation_ccw=ccw).write(tmp_path / "turned.mp4")
    expected, found = run_segmenter(upright, components=FEW), run_segmenter(turned, components=FEW)
    assert FramesDir.open(found.frames_dir).metadata["rotation_deg"] == 360 - ccw
    assert features(found) == pytest.approx(features(expected), nan_ok=True)
    assert difference(stored_frames(found), stored_frames(expected)) <= 2.0
    dense, reference = (r.artifact.extra["dense_signals"].arrays for r in (found, expected))
    assert dense["luma_mean"] == pytest.approx(reference["luma_mean"], abs=0.005)
    assert np.nanmax(np.abs(dense["hist_l1"] - reference["hist_l1"])) < 0.02


def test_an_anamorphic_copy_equals_the_square_one(tmp_path: Path, run_segmenter: Run) -> None:
    square = pattern_clip(144, 256).write(tmp_path / "square.mp4")
    squeezed = pattern_clip(144, 192, pixel_aspect=Fraction(4, 3)).write(tmp_path / "squeezed.mp4")
    expected, found = run_segmenter(square, components=FEW), run_segmenter(squeezed, components=FEW)
    assert features(found) == pytest.approx(features(expected), nan_ok=True)
    assert difference(stored_frames(found), stored_frames(expected)) <= 2.0


def remux(source: Path, target: Path, shift_ticks: int = 0) -> Path:
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        copies = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.dts is None or packet.pts is None:
                continue
            packet.pts, packet.dts = packet.pts + shift_ticks, packet.dts + shift_ticks
            packet.stream = copies[packet.stream.index]
            writer.mux(packet)
    return target


@pytest.mark.parametrize(("suffix", "shift"), [(".mkv", 0), (".ts", 0), (".mp4", 12800 * 7), (".mkv", 12800 * 3)])
def test_a_remuxed_or_shifted_copy_gives_the_same_frames_and_times(
    suffix: str, shift: int, tmp_path: Path, run_segmenter: Run
) -> None:
    source = numbered_clip(150, time_base=Fraction(1, 12800), ticks=[512 * k for k in range(150)]).write(
        tmp_path / "source.mp4"
    )
    copy = remux(source, tmp_path / f"copy{suffix}", shift)
    expected, found = run_segmenter(source), run_segmenter(copy)
    for key in ("union_frame_indices_source", "component_indices"):
        assert np.array_equal(found.artifact.arrays[key], expected.artifact.arrays[key])
    times, reference = (r.artifact.arrays["union_timestamps_sec"] for r in (found, expected))
    assert times == pytest.approx(reference, abs=0.001)  # Matroska rounds to milliseconds
    assert found.artifact.arrays["frames_digest"] == expected.artifact.arrays["frames_digest"]


def test_avi_without_display_times_is_read(tmp_path: Path, run_segmenter: Run) -> None:
    clip = numbered_clip(150, time_base=Fraction(1, 25), ticks=list(range(150)), codec="mpeg4", options={"qscale": "2"})
    found = run_segmenter(clip.write(tmp_path / "clip.avi"))
    assert found.artifact.arrays["union_timestamps_sec"] == pytest.approx(np.arange(150) / 25)


@pytest.mark.parametrize("codec", ["libx264", "libvpx"])
def test_every_stored_frame_shows_its_own_number(codec: str, tmp_path: Path, run_segmenter: Run) -> None:
    """B-frames (H.264) and invisible reference frames (VP8) must not shift the numbering."""
    options = {
        "libx264": {"preset": "medium", "bf": "3"},
        "libvpx": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8", "b": "1M"},
    }
    clip = numbered_clip(300, codec=codec, options=options[codec])
    found = run_segmenter(clip.write(tmp_path / "clip.mkv"), components=[ComponentSampling("a", 40, 90, 90)])
    assert found.source.frames == 300
    assert [read_number(p) for p in stored_frames(found)] == found.artifact.arrays[
        "union_frame_indices_source"
    ].tolist()


def test_dropped_frames_move_neither_times_nor_content(tmp_path: Path, run_segmenter: Run) -> None:
    full = numbered_clip(300).write(tmp_path / "full.mp4")
    kept = [k for k in range(300) if k % 3 != 1]
    dropped = Clip((numbered_picture(k) for k in kept), [40 * k for k in kept]).write(tmp_path / "dropped.mp4")
    budget = [ComponentSampling("a", 20, 20, 20)]
    expected, found = run_segmenter(full, components=budget), run_segmenter(dropped, components=budget)
    assert features(found)["is_vfr"] == 1.0
    times, reference = (r.artifact.arrays["union_timestamps_sec"] for r in (found, expected))
    assert np.abs(times - reference).max() <= 0.0401  # the frame that was dropped, or its neighbour
    assert [read_number(p) for p in stored_frames(found)] == np.round(times * 25).astype(int).tolist()


def test_a_lower_analysis_rate_limits_the_candidates(tmp_path: Path, run_segmenter: Run) -> None:
    clip = numbered_clip(150).write(tmp_path / "clip.mp4")
    found = run_segmenter(clip, analysis_fps=5.0)
    assert found.artifact.arrays["union_frame_indices_source"].tolist() == list(range(0, 150, 5))
    assert features(found)["analysis_fps"] == 5.0
    shortfall = FramesDir.open(found.frames_dir).metadata["shortfall"]
    assert shortfall["core_clip"] == {"wanted_min": 200, "got": 30, "cause": "source_frames"}


def test_a_fixed_analysis_height(tmp_path: Path, run_segmenter: Run) -> None:
    clip = pattern_clip(360, 640).write(tmp_path / "clip.mp4")
    assert stored_frames(run_segmenter(clip, components=FEW, analysis_height=90)).shape[1:3] == (90, 160)


def test_thumbnails_are_written_on_request(tmp_path: Path, run_segmenter: Run) -> None:
    clip = pattern_clip(144, 256).write(tmp_path / "clip.mp4")
    assert "thumb_rgb" not in run_segmenter(clip).artifact.extra["dense_signals"].arrays
    thumbs = run_segmenter(clip, dense_thumbnails=True).artifact.extra["dense_signals"].arrays["thumb_rgb"]
    assert thumbs.shape == (130, 27, 48, 3)
    assert difference(np.asarray(thumbs[0]), colour_pattern(27, 48)) < 8


def test_full_range_and_colour_matrix_are_respected(tmp_path: Path, run_segmenter: Run) -> None:
    """A flat colour must come back, whatever range and matrix the stream says it is stored in."""
    wanted = np.array([200, 60, 30], dtype=np.uint8)
    frame = np.broadcast_to(wanted, (96, 160, 3))
    for name, codec, pixel_format in (
        ("limited", "libx264", "yuv420p"),
        ("full", "mjpeg", "yuvj420p"),
        ("rgb", "libx264rgb", "rgb24"),
    ):
        options = {"qscale": "1"} if codec == "mjpeg" else {"crf": "1", "preset": "ultrafast"}
        clip = Clip(
            (frame for _ in range(130)),
            [40 * k for k in range(130)],
            codec=codec,
            pixel_format=pixel_format,
            options=options,
        )
        stored = stored_frames(run_segmenter(clip.write(tmp_path / f"{name}.mkv"), components=FEW))
        assert stored.mean(axis=(0, 1, 2)) == pytest.approx(wanted, abs=3), name


def sweep(seconds: float, rate: int = 48000, channels: int = 2) -> np.ndarray:
    """Sound whose level tells the time: a 440 Hz tone that begins at 1 s of the audio."""
    t = np.arange(round(seconds * rate)) / rate
    tone = np.where(t >= 1.0, 0.5 * np.sin(2 * np.pi * 440 * t), 0.0)
    return np.repeat(tone[:, None], channels, axis=1).astype(np.float32)


def onset_sec(samples: np.ndarray, rate: int) -> float:
    return float(np.argmax(np.abs(samples) > 0.1)) / rate


@pytest.mark.parametrize("start", [0.0, 0.7])
def test_audio_stands_on_the_time_axis_of_the_video(start: float, tmp_path: Path, run_segmenter: Run) -> None:
    clip = numbered_clip(150, audio=sweep(6.0 - start), audio_start_sec=start).write(tmp_path / "clip.mkv")
    found = run_segmenter(clip)
    audio = FramesDir.open(found.frames_dir).audio_input("primary")
    assert onset_sec(audio.mono, audio.mono_rate) == pytest.approx(1.0 + start, abs=0.03)
    assert onset_sec(audio.full[:, 0], audio.full_rate) == pytest.approx(1.0 + start, abs=0.03)
    assert audio.windows is not None
    # The codec rounds both ends of the audio to its own blocks; windows within 50 ms of them may fall either way.
    margin = np.minimum(audio.windows.start_sec - start, 6.0 - audio.windows.end_sec)
    clear = np.abs(margin) > 0.05
    assert np.array_equal(audio.windows.mask[clear], margin[clear] > 0)
    assert 0 < audio.windows.mask.sum() < len(audio.windows.mask)
    assert features(found)["audio_coverage_ratio"] == pytest.approx((6.0 - start) / 6.0, abs=0.01)


def test_audio_before_the_video_is_cut(tmp_path: Path, run_segmenter: Run) -> None:
    late = [700 + 40 * k for k in range(150)]
    clip = numbered_clip(150, ticks=late, audio=sweep(6.7)).write(tmp_path / "clip.mkv")
    found = run_segmenter(clip)
    audio = FramesDir.open(found.frames_dir).audio_input(None)
    assert onset_sec(audio.mono, audio.mono_rate) == pytest.approx(0.3, abs=0.03)
    assert found.artifact.arrays["union_timestamps_sec"][0] == 0.0


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_the_mono_mix_cannot_clip_and_the_full_one_keeps_its_channels(
    channels: int, tmp_path: Path, run_segmenter: Run
) -> None:
    tone = 0.9 * np.sin(2 * np.pi * 440 * np.arange(6 * 48000) / 48000)
    clip = numbered_clip(150, audio=np.repeat(tone[:, None], channels, axis=1), audio_codec="flac")
    audio = FramesDir.open(run_segmenter(clip.write(tmp_path / "clip.mkv")).frames_dir).audio_input("tempo")
    assert audio.full.shape[1] == channels
    assert np.abs(audio.full).max() == pytest.approx(0.9, abs=0.01)
    assert np.abs(audio.mono).max() <= 0.91
    assert len(audio.mono) == pytest.approx(6 * 22050, abs=2)
    assert len(audio.full) == pytest.approx(6 * 48000, abs=2)


def test_resampling_is_band_limited(tmp_path: Path, run_segmenter: Run) -> None:
    """15 kHz lies beyond the mono file's band: it must vanish there, not come back as 7.05 kHz."""
    tone = 0.5 * np.sin(2 * np.pi * 15000 * np.arange(6 * 48000) / 48000)
    clip = numbered_clip(150, audio=tone[:, None], audio_codec="flac").write(tmp_path / "clip.mkv")
    audio = FramesDir.open(run_segmenter(clip).frames_dir).audio_input(None)
    assert np.sqrt(np.mean(audio.mono[2000:-2000] ** 2)) < 1e-4
    assert np.sqrt(np.mean(audio.full[2000:-2000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_drift_is_warned_of_and_then_refused(tmp_path: Path, run_segmenter: Run) -> None:
    slight = numbered_clip(150, audio=sweep(4.0)).write(tmp_path / "slight.mkv")
    found = run_segmenter(slight)
    assert "av_drift" in found.artifact.warnings
    assert features(found)["av_drift_sec"] == pytest.approx(2.0, abs=0.05)
    assert features(found)["audio_coverage_ratio"] == pytest.approx(4 / 6, abs=0.01)
    with pytest.raises(TrendFlowError, match="video_file_corrupted"):
        run_segmenter(slight, limits=MediaLimits(av_drift_max_sec=1.5))


def test_a_missing_declared_duration_is_estimated(tmp_path: Path, run_segmenter: Run) -> None:
    clip = numbered_clip(150, muxer_options={"live": "1"}).write(tmp_path / "clip.mkv")
    found = run_segmenter(clip)
    assert "duration_estimated" in found.artifact.warnings
    assert found.source.declared_duration_sec is None
    assert found.source.duration_sec == pytest.approx(6.0, abs=0.05)


def test_headers_can_be_asked_without_decoding(tmp_path: Path) -> None:
    found = probe(numbered_clip(150, audio=sweep(6.0)).write(tmp_path / "clip.mkv"), MediaLimits())
    assert found["declared_duration_sec"] == pytest.approx(6.0, abs=0.05)
    assert (found["width"], found["height"], found["codec"], found["audio_codec"]) == (160, 96, "h264", "aac")


def test_memory_does_not_grow_with_duration(tmp_path: Path, run_segmenter: Run) -> None:
    picture = colour_pattern(72, 128)
    peaks = []
    for count in (300, 3300):
        clip = Clip((picture for _ in range(count)), [100 * k for k in range(count)]).write(tmp_path / f"{count}.mp4")
        found = run_segmenter(clip, components=FEW, dense_thumbnails=True)
        peaks.append(found.artifact.meta["resource_metrics"]["decoder_peak_rss_mb"])
    assert peaks[1] - peaks[0] < 4  # the thumbnails of 3000 frames alone would be 11 MB
