"""A small SYNTHETIC clip and throw-away deployments for tests of the run machinery."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from dagster import DagsterInstance

from trendflow.config import Settings
from trendflow.definitions import build_definitions
from trendflow.models.pool import ModelPool
from trendflow.orchestration import resources
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.history import create_history
from trendflow.orchestration.jobs import PROCESS_VIDEO
from trendflow.orchestration.launch import process_here
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.work import Finished
from trendflow.orchestration.wrapper import persist, run_component
from trendflow_tests.orchestration.runs import Execute, Here, Submit, submit_file
from trendflow_tests.orchestration.scheduling import Stage, staged

REPO = Path(__file__).resolve().parents[2]
FPS, SECONDS, RATE = 10, 6, 22050
CUT_FRAME = 30


def write_clip(path: Path, seed: int = 0, seconds: int = SECONDS, audio: bool = True) -> Path:
    """SYNTHETIC: two textured shots with slow pans, cut at frame 30, and clicks at 120 BPM."""
    rng = np.random.default_rng(seed)
    shots = [
        rng.integers(0, 255, (240, 400, 3), dtype=np.uint8) // 2,
        rng.integers(0, 255, (240, 400, 3), dtype=np.uint8),
    ]
    shots = [np.kron(shot[::8, ::8], np.ones((8, 8, 1), np.uint8)) for shot in shots]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "18"})
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        sound = container.add_stream("aac", rate=RATE, layout="mono") if audio else None
        for number in range(FPS * seconds):
            shot = shots[number >= CUT_FRAME]
            left = number % CUT_FRAME
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shot[:120, left : left + 160]), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            wave = np.zeros(RATE * seconds, np.float32)
            for start in range(0, len(wave) - 400, RATE // 2):
                wave[start : start + 400] = rng.normal(0, 0.4, 400) * np.linspace(1, 0, 400)
            for start in range(0, len(wave), 1024):
                block = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = RATE, start, Fraction(1, RATE)
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "synthetic.mp4")


@pytest.fixture(scope="session")
def other_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "synthetic2.mp4", seed=1)


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path, pool: ModelPool) -> Deployment:
    """A store of its own; the models are those that every test of this process uses."""
    made = Deployment(Settings(home=tmp_path / "home", models=models_dir, onnx_threads=1))
    vars(made)["pool"] = pool
    return made


@pytest.fixture(autouse=True)
def _nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a process keeps for its next run, models above all, ends with the test that was such a process."""
    opened: dict[str, Deployment] = {}
    monkeypatch.setattr("trendflow.orchestration.deployment._opened", opened)
    yield
    resources._run.cache_clear()
    for each in opened.values():
        each.pool.close()


@pytest.fixture
def submit() -> Submit:
    return submit_file


@pytest.fixture
def execute() -> Execute:
    """Runs components of a run in graph order, storing each; stops when a required one failed."""

    def run_all(run: RunContext, only: set[str] | None = None) -> dict[str, Finished]:
        results: dict[str, Finished] = {}
        for node in run.enabled:
            if only is None or node.name in only:
                results[node.name] = run_component(run, node.name, sleep=lambda seconds: None)
                persist(run, results[node.name])
                if results[node.name].origin == "error" and run.is_required(node.name):
                    break
        return results

    return run_all


@pytest.fixture
def here(deployment: Deployment, dagster_home: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Processes a run through Dagster, with the assets of this test's deployment. Gives back how it ended."""
    monkeypatch.setattr(resources.TrendFlowResource, "deployment", property(lambda self: deployment))

    def process(run: RunContext) -> str:
        job = build_definitions(deployment).resolve_job_def(PROCESS_VIDEO)
        return process_here(job, run.identity.partition_key)

    return process


@pytest.fixture(scope="session")
def empty_history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dagster home with empty databases, to be copied: making them takes longer than most tests."""
    home = tmp_path_factory.mktemp("history")
    shutil.copy(REPO / "dagster.yaml", home)
    create_history(home)
    return home


@pytest.fixture
def stage(tmp_path: Path, empty_history: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A deployment whose scheduler the test drives by hand."""
    monkeypatch.setenv("DAGSTER_HOME", str(shutil.copytree(empty_history, tmp_path / "dagster")))
    with staged(tmp_path / "home", monkeypatch) as stage:
        yield stage


@pytest.fixture
def dagster_home(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_bytes((REPO / "dagster.yaml").read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRENDFLOW_MODELS", str(models_dir))
    return home


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """Dagster's history of one test."""
    folder = tmp_path / "history"
    folder.mkdir()
    with DagsterInstance.local_temp(str(folder)) as made:
        yield made
