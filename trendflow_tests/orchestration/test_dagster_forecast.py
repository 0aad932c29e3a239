"""From snapshots to a forecast as a user makes it: the real server with both code locations, on a SYNTHETIC corpus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from training.assets import BASELINES
from training.definitions import TRAIN_BASELINES
from training.split_table import verify_split
from trendflow.contracts.canonical import sha256_hex
from trendflow.dataset.stored_tables import CHANNELS, DATASET, SNAPSHOTS, TARGETS, TableStore
from trendflow.dataset.table.reader import Dataset
from trendflow.inference.bundle import ModelBundle
from trendflow.orchestration.jobs import BUILD_DATASET, COLLECT_SNAPSHOTS, FORECAST_VIDEO
from trendflow.orchestration.partitions import VIDEO_RUNS
from trendflow.orchestration.prediction import NO_MODEL, PREDICTION
from trendflow_tests.browser import WebPage
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.orchestration.corpus import VIDEOS, Corpus, write_corpus
from trendflow_tests.orchestration.dagster_server import NODES, DagsterServer, running_server
from trendflow_tests.training.quick import DIVISION, SETTINGS

# The server is started and the chain is run once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("forecast-server")

FIRST, SECOND = "trendflow", "training"
FORECAST_KEY, OTHER_KEY = "SYNTHETIC_video_000007/SYNTHETIC_run", "SYNTHETIC_video_000008/SYNTHETIC_run"
MADE_BY = {
    FIRST: {"snapshots", "targets", "channel_enrichment", "feature_table", "training_dataset"},
    SECOND: {"splits", "baseline_catboost", "baseline_lightgbm", "evaluation", "model_card", "training_report"},
}
VERSIONS = """{ assetNodes {
  assetKey { path } staleStatus repository { location { name } }
  assetMaterializations(limit: 1) { partition runId tags { key value } }
} }"""


@dataclass(frozen=True)
class Chain:
    """The server, its corpus, and how every launched run ended: name → status and tags."""

    server: DagsterServer
    corpus: Corpus
    run_ids: dict[str, str]
    ended: dict[str, tuple[str, dict[str, str]]]

    @property
    def tables(self) -> TableStore:
        return TableStore(self.corpus.deployment.store)

    @property
    def artifacts(self) -> Path:
        """Where the location `training` leaves its runs: below the folder that the server was started in."""
        return self.server.cli.home.parent / "training" / "artifacts"

    def models(self) -> dict[str, str]:
        """Family → id of its current training run, by the store."""
        return {family: self.tables.require(f"baseline_{family}").facts["run_id"] for family in BASELINES}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Chain]:
    corpus = write_corpus(tmp_path_factory.mktemp("forecast"))
    settings = corpus.deployment.settings
    variables = {"TRENDFLOW_GRAPH_FILE": settings.graph_file, "TRENDFLOW_SNAPSHOT_FOLDER": corpus.snapshots}
    cli = Cli(settings.home, models_dir, **{name: str(value) for name, value in variables.items()})
    with running_server(cli) as server:
        yield _run_chain(server, corpus)


def _run_chain(server: DagsterServer, corpus: Corpus) -> Chain:
    def loaded() -> bool:
        found = {node["assetKey"]["path"][-1] for node in server.ask(NODES)["assetNodes"]}
        return found >= {*MADE_BY[FIRST], *MADE_BY[SECOND], PREDICTION}

    server.wait(loaded, 300)
    launched, ended = {}, {}

    def end(*names: str) -> None:
        for name in names:
            ended[name] = server.ended(launched[name])

    launched["build"] = server.launch(FIRST, BUILD_DATASET, {"dataset_build": {"synthetic": True}})
    launched["collect"] = server.launch(FIRST, COLLECT_SNAPSHOTS)
    end("build", "collect")
    baselines = {f"baseline_{family}": {"settings": SETTINGS[family]} for family in BASELINES}
    launched["train"] = server.launch(SECOND, TRAIN_BASELINES, {"splits": {"settings": DIVISION}, **baselines})
    for key in (FORECAST_KEY, OTHER_KEY):
        server.add_partition(FIRST, VIDEO_RUNS, key)
    end("train")
    model = {"models": ["baseline_catboost"], "allow_synthetic": True}
    launched["forecast"] = server.launch(FIRST, FORECAST_VIDEO, {PREDICTION: model}, partition=FORECAST_KEY)
    launched["without_model"] = server.launch(FIRST, FORECAST_VIDEO, partition=OTHER_KEY)
    end("forecast", "without_model")
    return Chain(server, corpus, launched, ended)


def test_everything_that_can_be_made_is_made_and_what_cannot_says_why(chain: Chain) -> None:
    outcomes = {name: (status, tags.get("trendflow/error_code")) for name, (status, tags) in chain.ended.items()}
    assert outcomes == {
        "build": ("SUCCESS", None),
        "collect": ("FAILURE", "config_invalid"),
        "train": ("SUCCESS", None),
        "forecast": ("SUCCESS", None),
        "without_model": ("SUCCESS", None),
    }


def test_the_chain_crosses_both_locations_and_agrees_with_the_store(chain: Chain, tmp_path: Path) -> None:
    nodes = {node["assetKey"]["path"][-1]: node for node in chain.server.ask(VERSIONS)["assetNodes"]}
    versions = {}
    for location, names in MADE_BY.items():
        for name in names:
            assert nodes[name]["repository"]["location"]["name"] == location
            assert nodes[name]["staleStatus"] == "FRESH"
            [made] = nodes[name]["assetMaterializations"]
            assert made["runId"] == chain.run_ids["build" if location == FIRST else "train"]
            versions[name] = {tag["key"]: tag["value"] for tag in made["tags"]}

    stored = {name: chain.tables.require(name) for name in (SNAPSHOTS, TARGETS, CHANNELS, "splits", "evaluation")}
    for name, asset in {**dict.fromkeys(stored), CHANNELS: "channel_enrichment"}.items():
        assert versions[asset or name]["dagster/data_version"] == stored[name].digest
    dataset = _dataset(chain, tmp_path)
    assert dataset.table.num_rows == VIDEOS
    assert versions["training_dataset"]["dagster/data_version"] == dataset.fingerprint
    assert versions["splits"]["dagster/input_data_version/training_dataset"] == dataset.fingerprint


def test_models_evaluation_card_and_pages_are_of_this_dataset(chain: Chain, tmp_path: Path) -> None:
    dataset = _dataset(chain, tmp_path)
    store, tables, models = chain.corpus.deployment.store, chain.tables, chain.models()
    division = tables.require("splits").files["splits.parquet"]
    card = tables.read(tables.require("model_card"))["model_card.md"].decode()
    for family, run_id in models.items():
        bundle = ModelBundle.read(chain.artifacts / run_id)
        assert bundle.manifest["model_family"] == family
        assert bundle.manifest["dataset"]["dataset_fingerprint"] == dataset.fingerprint
        assert sha256_hex(store.get(f"training/{run_id}/splits.parquet")) == division
        assert verify_split(chain.artifacts / run_id / "splits.parquet")["channels_disjoint"]
        assert run_id in card
        assert "SYNTHETIC" in store.get(f"training/{run_id}/report.html").decode()
    assert card.startswith("# SYNTHETIC Model card")
    assert json.loads(tables.read(tables.require("evaluation"))["evaluation.json"])["runs"] == models


def test_the_forecast_is_made_by_the_model_of_the_other_location(chain: Chain) -> None:
    video_id, _, run_id = FORECAST_KEY.partition("/")
    store = chain.corpus.deployment.store
    document = json.loads(store.get(f"render_cache/upload/{video_id}/{run_id}/prediction_report.json"))
    assert document["prediction_status"] == "ok"
    assert document["synthetic"]
    assert document["model_used"]["training_run_id"] == chain.models()["catboost"]
    assert "SYNTHETIC" in store.get(f"render_cache/upload/{video_id}/{run_id}/forecast.html").decode()
    other_video, _, other_run = OTHER_KEY.partition("/")
    assert not store.exists(f"render_cache/upload/{other_video}/{other_run}/prediction_report.json")


def test_a_browser_shows_graph_assets_checks_and_failures(chain: Chain, web_page: WebPage, tmp_path: Path) -> None:
    url, dataset = chain.server.url, _dataset(chain, tmp_path)
    web_page.open(f"{url}/asset-groups")
    web_page.shows("Global asset lineage", "feature_vector", "collection", "dataset", "training", "forecast")
    web_page.open(f"{url}/assets/training_dataset?view=lineage")
    web_page.shows("feature_table", "targets", "splits", "baseline_catboost")

    web_page.open(f"{url}/assets/training_dataset")
    coverage = [f"{head}\t{share:.1%}" for head, share in dataset.metadata["mask_coverage"].items()]
    web_page.shows("leakage guard", "SYNTHETIC", dataset.fingerprint, *coverage, "dataset.parquet", "data-engineering")
    web_page.open(f"{url}/assets/training_dataset?view=checks")
    web_page.shows("Checks (4)", "fingerprint", "leakage", "mask_coverage", "valid", "Succeeded")

    web_page.open(f"{url}/assets/model_card")
    web_page.shows("model_card.md", "SYNTHETIC", "machine-learning")
    web_page.open(f"{url}/assets/{PREDICTION}")
    web_page.shows("Views after 7 days", chain.models()["catboost"], "forecast.html")
    web_page.open(f"{url}/runs/{chain.run_ids['without_model']}")
    web_page.shows(NO_MODEL)
    web_page.open(f"{url}/runs/{chain.run_ids['collect']}")
    web_page.shows("config_invalid: A key of the YouTube Data API is needed; set TRENDFLOW_YOUTUBE_API_KEY.")


def _dataset(chain: Chain, folder: Path) -> Dataset:
    """The current dataset of the store, file by file, verified as it is read."""
    prefix = chain.tables.require(DATASET).facts["prefix"]
    target = folder / "dataset"
    target.mkdir()
    for info in chain.corpus.deployment.store.list(f"{prefix}/"):
        (target / info.key.rpartition("/")[2]).write_bytes(chain.corpus.deployment.store.get(info.key))
    return Dataset.read(target, chain.corpus.deployment.schemas)
