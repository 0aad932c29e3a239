"""The ten clips, run once through the starter profile as a user's videos are, and what was measured on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trendflow.config import Settings
from trendflow.models.pool import ModelPool
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.document_input import providing
from trendflow.orchestration.runs import new_run_id, submit_run
from trendflow.orchestration.wrapper import persist, run_component
from trendflow_tests.corpus.films import make_films
from trendflow_tests.corpus.measured import Columns
from trendflow_tests.orchestration.runs import fewer_pictures, with_profile

PICTURES = 32, 48  # least and wanted number of frames for whoever runs a model on them


@pytest.fixture(scope="session")
def columns(tmp_path_factory: pytest.TempPathFactory, data_dir: Path, models_dir: Path, pool: ModelPool) -> Columns:
    folder = tmp_path_factory.mktemp("films")
    deployment = Deployment(Settings(home=tmp_path_factory.mktemp("home"), models=models_dir, onnx_threads=1))
    vars(deployment)["pool"] = pool
    with_profile(deployment, fewer_pictures(*PICTURES))
    columns = Columns(deployment.schemas)
    for name, film in make_films(data_dir, folder):
        run = submit_run(
            deployment,
            locator=str(film.path),
            source_type="local_path",
            platform_id="upload",
            video_id=f"corpus-clip-{name}",
            run_id=new_run_id(),
            profile="starter",
            document=film.document,
        )
        with providing(run, film.document):
            for node in run.enabled:
                if node.kind == "dataset":
                    continue  # it restates what the others measured
                finished = run_component(run, node.name, sleep=lambda seconds: None)
                assert finished.origin == "computed", f"{node.name} on {name}: {finished.meta['error']}"
                persist(run, finished)
                for arrays, meta in finished.artifacts.values():
                    columns.add(name, arrays, meta)
    return columns
