"""What a stored run gives to a forecast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.run_inputs import read_run_inputs
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.dataset.synthetic import COMPONENT, column, store_run
from trendflow_tests.storage.runs import make_identity, store_component


@pytest.fixture
def results(tmp_path: Path) -> ResultStore:
    return ResultStore(ObjectStore.open(tmp_path.as_uri()))


def test_vector_versions_frames_and_windows(results: ResultStore) -> None:
    values = {"cuts_per_minute": 12.0, "first_cut_time_s": float("nan")}
    path = store_run(results, values, video="made-up")
    arrays = {"union_timestamps_sec": np.arange(7.0), "segment_mask": np.array([True, True, False])}
    store_component(results, make_identity("run-1", "made-up"), "segmenter", arrays)
    found = read_run_inputs(results, path)
    assert (found.platform_id, found.video_id, found.run_id) == ("upload", "made-up", "run-1")
    assert (found.frames, found.audio_segments) == (7, 2)
    assert found.content is not None
    assert found.content.layout.names == (column("cuts_per_minute"), column("first_cut_time_s"))
    assert found.components[COMPONENT].producer_version == "1.0.0"
    assert found.modalities == ("visual",)
    assert found.warnings == ()


def test_nothing_measured_is_no_modality(results: ResultStore) -> None:
    found = read_run_inputs(results, store_run(results, {"cuts_per_minute": float("nan")}, video="made-up"))
    assert found.modalities == ()
    assert (found.frames, found.audio_segments) == (None, None)  # this run keeps no artifact of the Segmenter


def test_runs_that_are_not_there_or_not_finished_are_refused(results: ResultStore) -> None:
    path = store_run(results, {"cuts_per_minute": 1.0}, video="made-up", finished=False)
    for run, word in ((path, "not finished"), ("upload/made-up/other", "no run made-up/other")):
        with pytest.raises(TrendFlowError, match=word) as caught:
            read_run_inputs(results, run)
        assert caught.value.error_code == "dependency_missing"
