from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.wav import WavWriter, read_wav

LAYOUTS = {1: ("FC",), 2: ("FL", "FR"), 6: ("FL", "FR", "FC", "LFE", "BL", "BR")}


def write(path: Path, samples: np.ndarray, rate: int = 48000) -> Path:
    with WavWriter(path, rate, LAYOUTS[samples.shape[1]], samples.dtype.type) as writer:
        for part in np.array_split(samples, 3):
            writer.write(part)
    return path


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_another_library_reads_the_same_samples(tmp_path: Path, channels: int, dtype: type) -> None:
    rng = np.random.default_rng(channels)
    samples = rng.uniform(-1, 1, (1000, channels)).astype(np.float32)
    if dtype is np.int16:
        samples = np.round(samples * 32767).astype(np.int16)
    path = write(tmp_path / "a.wav", samples)
    found, rate = soundfile.read(path, dtype=np.dtype(dtype).name, always_2d=True)
    assert rate == 48000
    assert np.array_equal(found, samples)
    mapped = read_wav(path)
    assert np.array_equal(mapped.samples, samples)
    assert mapped.sample_rate == 48000


def test_files_written_by_another_library_can_be_read(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).uniform(-1, 1, (777, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
    assert np.array_equal(read_wav(tmp_path / "a.wav").samples, samples)


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    samples = np.ones((100, 2), dtype=np.float32)
    assert write(tmp_path / "a.wav", samples).read_bytes() == write(tmp_path / "b.wav", samples).read_bytes()


@pytest.mark.parametrize("cut", [3, 11, 20, 40, 200])
def test_truncated_files_are_refused(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.wav", np.ones((100, 2), dtype=np.float32))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TrendFlowError, match="artifact_validation_failed"):
        read_wav(path)
