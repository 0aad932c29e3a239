"""Scratch folders that nobody will remove any more."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.inputs import build_inputs
from trendflow.orchestration.scratch import ABANDONED_SEC, mark_scratch, scratch_dir, sweep_scratch
from trendflow_tests.orchestration.probe import NAME, add_probe, value
from trendflow_tests.orchestration.runs import Execute, Here, Submit


def left(root: Path, process: str, age_sec: float, run: str = "upload/my-video/run-1") -> Path:
    """What a process left of a run so long ago."""
    folder = root / run / process
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "film.mp4").write_bytes(b"SYNTHETIC film")
    os.utime(folder, times=(time.time() - age_sec,) * 2)
    return folder


def test_what_is_older_than_an_hour_goes_and_with_it_empty_folders(tmp_path: Path) -> None:
    old, young = left(tmp_path, "100", 3601), left(tmp_path, "200", 3000)
    other = left(tmp_path, "100", 90_000, "youtube/abcdefghijk/run-2")
    assert ABANDONED_SEC == 3600
    assert sweep_scratch(tmp_path) == 2
    assert not old.exists()
    assert (young / "source" / "film.mp4").exists()
    assert not other.parent.parent.exists()
    assert sweep_scratch(tmp_path) == 0
    assert sweep_scratch(tmp_path / "never-made") == 0


def test_a_component_marks_the_folder_of_its_process(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip)
    mark_scratch(run)
    assert not scratch_dir(run).exists(), "a run that needs none gets none"
    execute(run, {"segmenter"})
    folder = left(deployment.settings.scratch_dir, str(os.getpid()), 5000, run.run_path)
    build_inputs(run, NAME, run.manifest())
    assert sweep_scratch(deployment.settings.scratch_dir) == 0
    assert folder.exists()


@pytest.mark.parametrize("age_sec", [10, 5000])
def test_a_run_sweeps_before_it_works(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, age_sec: float
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    folder = left(deployment.settings.scratch_dir, "1", age_sec)
    assert here(submit(deployment, clip)) == "success"
    assert folder.exists() == (age_sec < ABANDONED_SEC)


def test_folders_that_others_remove_during_a_sweep_are_none_of_its_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned = left(tmp_path, "100", 3601)
    listed = Path.iterdir

    def meanwhile(folder: Path) -> Iterator[Path]:
        """Every folder is seen together with one that is gone when it is looked into."""
        return iter([folder / "gone", *listed(folder)])

    monkeypatch.setattr(Path, "iterdir", meanwhile)
    assert sweep_scratch(tmp_path) == 1
    assert not abandoned.exists()
