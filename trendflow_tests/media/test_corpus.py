"""Every file of the test corpus behaves as its README says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.media import documents
from trendflow.media.frames_dir import FramesDir, read_document
from trendflow.media.segmenter import Segmented, segment
from trendflow_tests.media.clips import NO_MINIMUM, features, request_for, stored_frames

# Each file is segmented once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("media-corpus")

Corpus = Callable[[str], Segmented]


@dataclass(frozen=True)
class Facts:
    """What must be found. Sizes are (width, height)."""

    frames: int
    duration: float
    source: tuple[int, int]
    analysis: tuple[int, int]
    warnings: set[str]
    audio_channels: int = 0
    vfr: bool = False
    hdr: bool = False


SHORT = "sampling_shortfall"
ACCEPTED = {
    "hello_face_speech.mp4": Facts(249, 8.3, (1280, 720), (568, 320), {SHORT}, 2),
    "big_buck_bunny_480p_30s.mp4": Facts(720, 30.0, (854, 480), (570, 320), set(), 6),
    "bbb_vfr_drop3.mp4": Facts(480, 29.9583, (854, 480), (570, 320), set(), 2, vfr=True),
    "bbb_truncated_60pct.mp4": Facts(453, 18.875, (854, 480), (570, 320), {"truncated_stream"}, 6),
    "nasa_two_streams.mp4": Facts(390, 13.013, (480, 270), (480, 270), {SHORT}, 2),
    "nasa_hdr.mp4": Facts(325, 13.0, (320, 180), (320, 180), {SHORT, "hdr_tonemapped"}, hdr=True),
    "testsrc_av1.mkv": Facts(125, 5.0, (640, 360), (568, 320), {SHORT}),
    "transparent.webm": Facts(150, 5.0, (200, 200), (200, 200), {SHORT}, 2),
    "fades.mp4": Facts(250, 10.0, (480, 320), (480, 320), {SHORT}),
    "smpte_1080p_2997.mp4": Facts(251, 10.04, (1920, 1080), (568, 320), {SHORT}, 2),
    "frame_counter_462.mp4": Facts(462, 18.48, (224, 126), (224, 126), set()),
    "people_139s.mp4": Facts(1394, 139.4, (768, 432), (568, 320), set()),
    "cars_topdown_30s.mp4": Facts(377, 30.16, (768, 432), (568, 320), {SHORT}, 2),
    "damaged_nal.mp4": Facts(49, 5.0, (1280, 720), (568, 320), {SHORT, "decode_errors"}),
}
TOO_SHORT = {
    "bbb_4k_4s.mp4": Facts(96, 4.0, (3840, 2160), (568, 320), {SHORT}, 2),
    "bt2020_10bit.mp4": Facts(60, 2.0, (320, 240), (320, 240), {SHORT, "hdr_tonemapped"}, hdr=True),
    "nasa_rotated.mp4": Facts(17, 0.5672, (270, 480), (270, 480), {SHORT}),
    "non_zero_start.mp4": Facts(12, 0.4, (199, 112), (198, 112), {SHORT}),
    "odd_width_vp9.mp4": Facts(25, 1.0, (321, 240), (320, 240), {SHORT}),
    "four_frames.mov": Facts(4, 0.125, (50, 50), (50, 50), {SHORT}),
}
UNREADABLE = ("not_a_video.mp4", "audio_only.mp4")


def test_the_tables_cover_the_corpus(data_dir: Path) -> None:
    assert {path.name for path in (data_dir / "video").iterdir()} == {*ACCEPTED, *TOO_SHORT, *UNREADABLE}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_files_are_refused(name: str, data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError) as caught:
        segment(request_for(data_dir / "video" / name, tmp_path / "frames"))
    assert caught.value.error_code == "video_unreadable"
    assert not list((tmp_path / "frames" / "video").iterdir())


@pytest.mark.parametrize("name", TOO_SHORT)
def test_short_files_are_refused_by_default(name: str, data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError) as caught:
        segment(request_for(data_dir / "video" / name, tmp_path / "frames"))
    assert caught.value.error_code == "input_constraint_violated"


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_files_pass_the_default_limits(name: str, corpus_segmentation: Corpus) -> None:
    assert corpus_segmentation(name).source.duration_sec >= 5.0


@pytest.mark.parametrize(("name", "facts"), [*ACCEPTED.items(), *TOO_SHORT.items()], ids=[*ACCEPTED, *TOO_SHORT])
def test_facts(name: str, facts: Facts, corpus_segmentation: Corpus) -> None:
    found = corpus_segmentation(name)
    values = features(found)
    assert found.source.frames == facts.frames
    assert found.source.duration_sec == pytest.approx(facts.duration, abs=1e-3)
    assert (values["source_width"], values["source_height"]) == facts.source
    assert (values["analysis_width"], values["analysis_height"]) == facts.analysis
    assert set(found.artifact.warnings) == facts.warnings
    assert values["audio_present"] == (facts.audio_channels > 0)
    assert values["audio_channels"] == facts.audio_channels
    assert values["is_vfr"] == facts.vfr
    assert values["is_hdr"] == facts.hdr
    assert values["is_portrait"] == (facts.source[1] > facts.source[0])
    assert np.isnan(values["av_drift_sec"]) == (facts.audio_channels == 0)


@pytest.mark.parametrize("name", [*ACCEPTED, *TOO_SHORT])
def test_documents_and_artifacts_agree(name: str, corpus_segmentation: Corpus) -> None:
    found = corpus_segmentation(name)
    registry = SchemaRegistry.load()
    root, arrays = found.frames_dir, found.artifact.arrays
    for schema, document in (
        ("frames_metadata_v1", documents.VIDEO_METADATA),
        ("audio_metadata_v1", documents.AUDIO_METADATA),
        ("audio_segments_v1", documents.SEGMENTS),
    ):
        assert validate_document(registry, schema, read_document(root, document)) == []
    metadata = FramesDir.open(root).metadata
    dense = found.artifact.extra["dense_signals"].arrays
    source = arrays["union_frame_indices_source"]
    assert metadata["union_frame_indices_source"] == source.tolist()
    assert np.array_equal(arrays["union_timestamps_sec"], dense["pts_sec"][source])
    assert metadata["union_timestamps_sec"] == arrays["union_timestamps_sec"].tolist()
    numerator, denominator = dense["time_base"].tolist()
    assert np.array_equal(dense["pts_sec"], (dense["pts"] - dense["pts"][0]) * (numerator / denominator))
    assert {len(dense[key]) for key in ("pts", "pts_sec", "hist_l1", "luma_mean", "lowres_mad", "corrupt_mask")} == {
        found.source.frames
    }
    splits = arrays["component_indices_row_splits"]
    for k, component in enumerate(arrays["component_names"].tolist()):
        indices = arrays["component_indices"][splits[k] : splits[k + 1]].tolist()
        assert metadata[component]["frame_indices"] == indices
        assert metadata[component]["source_frame_indices"] == source[indices].tolist()


def independent_frames(path: Path, stream: int, width: int, height: int) -> list[np.ndarray]:
    """All frames by a plain decode, brought to size by a bicubic filter over planar 4:4:4: none of our own settings."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams[stream]):
            small = frame.reformat(width, height, "yuv444p", interpolation=Interpolation.BICUBIC)
            frames.append(small.reformat(format="rgb24").to_ndarray())
    return frames


@pytest.mark.parametrize(
    ("name", "stream"),
    [("frame_counter_462.mp4", 0), ("nasa_two_streams.mp4", 3), ("testsrc_av1.mkv", 0), ("bbb_vfr_drop3.mp4", 0)],
)
def test_stored_frames_equal_an_independent_decode(
    name: str, stream: int, data_dir: Path, corpus_segmentation: Corpus
) -> None:
    found = corpus_segmentation(name)
    stored = stored_frames(found)
    height, width = stored.shape[1:3]
    plain = independent_frames(data_dir / "video" / name, stream, width, height)
    assert len(plain) == found.source.frames
    for picture, number in zip(stored, found.artifact.arrays["union_frame_indices_source"], strict=True):
        assert np.abs(picture.astype(np.int16) - plain[number]).mean() <= 2.0


def test_the_counter_shows_the_number_of_every_stored_frame(data_dir: Path, corpus_segmentation: Corpus) -> None:
    """Each stored picture is nearer to the frame it claims to be than to either neighbour."""
    found = corpus_segmentation("frame_counter_462.mp4")
    stored = stored_frames(found).astype(np.int16)
    plain = independent_frames(data_dir / "video" / "frame_counter_462.mp4", 0, 224, 126)
    for picture, number in zip(stored, found.artifact.arrays["union_frame_indices_source"], strict=True):
        around = [k for k in (number - 1, number, number + 1) if 0 <= k < len(plain)]
        assert min(around, key=lambda k: np.abs(picture - plain[k]).mean()) == number


@pytest.mark.parametrize(
    ("name", "cuts", "tolerance"),
    [
        ("big_buck_bunny_480p_30s.mp4", (11.875, 15.75, 23.042), 1e-3),
        ("bbb_vfr_drop3.mp4", (11.875, 15.75, 23.042), 1 / 24),
        ("nasa_two_streams.mp4", (8.008,), 1e-3),
    ],
)
def test_the_largest_steps_are_the_known_cuts(
    name: str, cuts: tuple[float, ...], tolerance: float, corpus_segmentation: Corpus
) -> None:
    dense = corpus_segmentation(name).artifact.extra["dense_signals"].arrays
    score = np.sqrt(np.nan_to_num(dense["hist_l1"]) * np.nan_to_num(dense["lowres_mad"]))
    strongest = np.sort(dense["pts_sec"][np.argsort(score)[-len(cuts) :]])
    assert strongest == pytest.approx(cuts, abs=tolerance)


def test_a_late_container_start_does_not_move_the_axis(corpus_segmentation: Corpus) -> None:
    found = corpus_segmentation("non_zero_start.mp4")
    assert found.artifact.arrays["union_timestamps_sec"][0] == 0.0
    assert FramesDir.open(found.frames_dir).metadata["start_pts_sec"] == pytest.approx(8.333, abs=1e-3)


def test_the_damaged_frame_is_marked(corpus_segmentation: Corpus) -> None:
    found = corpus_segmentation("damaged_nal.mp4")
    assert found.artifact.extra["dense_signals"].arrays["corrupt_mask"].sum() == 1
    assert features(found)["decode_error_ratio"] == pytest.approx(2 / 50)
    assert found.preprocessing[0]["step"] == "tolerant_decode"


def test_silence_is_audio(corpus_segmentation: Corpus) -> None:
    audio = FramesDir.open(corpus_segmentation("cars_topdown_30s.mp4").frames_dir).audio_input("primary")
    assert audio.present
    assert not audio.mono.any()


def test_without_audio_everything_about_it_is_empty(corpus_segmentation: Corpus) -> None:
    found = corpus_segmentation("people_139s.mp4")
    frames = FramesDir.open(found.frames_dir)
    audio = frames.audio_input("primary")
    assert (audio.present, audio.empty_reason) == (False, "audio_missing_or_extract_failed")
    assert audio.mono.size == audio.full.size == 0
    assert read_document(found.frames_dir, documents.SEGMENTS)["families"] == {}
    assert not list((found.frames_dir / "audio").glob("*.wav"))
    assert found.artifact.arrays["audio_digest"].item() == ""
    assert features(found)["audio_coverage_ratio"] == 0.0


def test_an_hdr_picture_becomes_a_plausible_sdr_one(corpus_segmentation: Corpus) -> None:
    """Without tone mapping PQ looks flat and grey: shadows lifted, highlights at two thirds of the scale."""
    stored = stored_frames(corpus_segmentation("nasa_hdr.mp4")).astype(float)
    assert np.percentile(stored, 1) < 25
    assert np.percentile(stored, 99.5) > 200


def test_a_second_run_gives_the_same_bytes(data_dir: Path, tmp_path: Path, corpus_segmentation: Corpus) -> None:
    first = corpus_segmentation("hello_face_speech.mp4")
    path = data_dir / "video" / "hello_face_speech.mp4"
    second = segment(request_for(path, tmp_path / "frames", limits=NO_MINIMUM))
    for one, other in (
        (first.artifact, second.artifact),
        (first.artifact.extra["dense_signals"], second.artifact.extra["dense_signals"]),
    ):
        assert one.arrays.keys() == other.arrays.keys()
        for key in one.arrays:
            assert one.arrays[key].dtype == other.arrays[key].dtype
            assert one.arrays[key].tobytes() == other.arrays[key].tobytes(), key
