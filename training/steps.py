"""From the stored dataset to models, evaluation and card, one function per asset; without Dagster.

Everything goes into the object store; run folders also lie below `artifacts`, where people look at them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from training.compare import Comparison, compare, markdown
from training.config import FamilyName, TrainingConfig, load_config
from training.data import TrainingData
from training.documents import json_bytes
from training.files import publish_folder
from training.fold import Progress
from training.model_card import model_card
from training.reuse import find_run
from training.run import REPORT, SPLITS, TrainingRun, plan_split, train
from training.split_table import verify_split
from trendflow.config import Settings
from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.stored_tables import DATASET, StoredTable, TableStore
from trendflow.dataset.table.files import fetch_dataset
from trendflow.dataset.table.reader import Dataset
from trendflow.inference.bundle import MANIFEST
from trendflow.inference.stored_runs import STORE_PREFIX, fetch_run
from trendflow.storage.object_store import ObjectStore

SPLIT_RECORD, EVALUATION, MODEL_CARD = "splits", "evaluation", "model_card"
EVALUATION_JSON, EVALUATION_PAGE, CARD_FILE = "evaluation.json", "evaluation.md", "model_card.md"
_FETCHED = "training_datasets"


@dataclass(frozen=True)
class Workplace:
    """Where training takes its dataset from and puts its results."""

    settings: Settings
    artifacts: Path

    @cached_property
    def store(self) -> ObjectStore:
        return ObjectStore.open(self.settings.resolved_store_url, self.settings.store_options)

    @property
    def tables(self) -> TableStore:
        return TableStore(self.store)

    def dataset(self, prefix: str) -> Path:
        """The folder of a stored dataset, copied here on first use. Raises `dependency_missing` without one."""
        return fetch_dataset(self.store, prefix, self.settings.home / _FETCHED)

    def run_folder(self, run_id: str) -> Path:
        """The folder of a training run, copied from the store where it is not here."""
        return fetch_run(self.store, run_id, self.artifacts)


@dataclass(frozen=True)
class Division:
    """Which videos train, validate and test. `file`: `splits.parquet`; `facts`: the dataset and what was set.

    Both are kept together, so that all families train on the same rows.
    """

    file: bytes
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """A run of a family and the folder of its dataset. `reused`: nothing had changed, nothing was trained.

    `stored`: the record that makes it the current run.
    """

    stored: StoredTable
    run: TrainingRun
    dataset: Path
    reused: bool

    @property
    def data_version(self) -> str:
        """What the models are and say, whenever they were trained."""
        manifest = self.run.manifest
        models = [entry["sha256"] for bundle in manifest["bundles"] for entry in bundle["horizons"]]
        return digest_of([models, manifest["predictions_sha256"]])


def record_of(family: str) -> str:
    """Name of the record, and of the asset, of a family's current run."""
    return f"baseline_{family}"


def divide(place: Workplace, config: TrainingConfig) -> Division:
    """Divide the current dataset.

    Errors as `Dataset.read` and `plan_split`; `dependency_missing` without a dataset.
    """
    prefix = place.tables.require(DATASET).facts["prefix"]
    data = TrainingData.of(Dataset.read(place.dataset(prefix)), config.embeddings)
    chosen = config.model_dump(mode="json", include={"split", "golden"})
    facts = {"dataset": prefix, "fingerprint": data.fingerprint, "synthetic": data.synthetic, **chosen}
    return Division(plan_split(data, config).file, facts)


def prove_division(division: Division) -> dict[str, Any]:
    """The proof of a division by its file alone. Errors as `verify_split`."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / SPLITS
        path.write_bytes(division.file)
        return verify_split(path)


def publish_division(place: Workplace, division: Division) -> StoredTable:
    """Make a division the current one: from here on all families train on it."""
    return place.tables.put(SPLIT_RECORD, {SPLITS: division.file}, division.facts)


def train_family(
    place: Workplace,
    family: FamilyName,
    file: Path | None,
    settings: Mapping[str, Any],
    *,
    previous: Path | None = None,
    retrain: bool = False,
    progress: Progress = lambda _: None,
) -> Trained:
    """Train a family on the stored division, or find the run that did so before. Errors as `train`.

    The run lies in the store for good; it becomes the current one once it is published.
    """
    splits = place.tables.require(SPLIT_RECORD)
    division = {name: splits.facts[name] for name in ("split", "golden")}
    config = load_config(file, {**settings, **division, "family": family})
    run = None if retrain or previous is not None else find_run(place.artifacts, splits.facts["fingerprint"], config)
    reused = run is not None
    folder = place.dataset(splits.facts["dataset"])
    if run is None:
        run = train(folder, config, place.artifacts, previous=previous, store=place.store, progress=progress)
    elif not place.store.exists(f"{STORE_PREFIX}/{run.run_id}/{MANIFEST}"):
        publish_folder(run.folder, place.store, f"{STORE_PREFIX}/{run.run_id}", MANIFEST)
    if run.manifest["splits_sha256"] != splits.files[SPLITS]:
        raise TrendFlowError("artifact_validation_failed", "The run was trained on another division than the stored.")
    facts = {"run_id": run.run_id, "made_from": splits.digest}
    return Trained(StoredTable(record_of(family), facts=facts), run, folder, reused)


def publish_trained(place: Workplace, trained: Trained) -> None:
    """Make a run the current one of its family: from here on evaluation, card and forecasts take it."""
    place.tables.put(trained.stored.name, facts=trained.stored.facts)


def current_runs(place: Workplace, families: Sequence[str]) -> list[Path]:
    """Folders of the current runs. Raises `dependency_missing` where a family has none."""
    return [place.run_folder(place.tables.require(record_of(family)).facts["run_id"]) for family in families]


def store_evaluation(place: Workplace, families: Sequence[str]) -> tuple[StoredTable, Comparison]:
    """Compare the current runs. Raises `config_invalid` when they are of different datasets or divisions."""
    found = compare(current_runs(place, families))
    files = {
        EVALUATION_JSON: json_bytes(found.document),
        EVALUATION_PAGE: markdown(found).encode(),
    }
    return place.tables.put(EVALUATION, files, {"runs": found.document["runs"]}), found


def store_model_card(place: Workplace, families: Sequence[str]) -> tuple[StoredTable, str]:
    """Write the card of the current runs."""
    folders = current_runs(place, families)
    text = model_card(folders)
    return place.tables.put(MODEL_CARD, {CARD_FILE: text.encode()}, {"runs": [path.name for path in folders]}), text


class StoredReport(NamedTuple):
    """The page of a run, by its key in the store."""

    run_id: str
    key: str


def store_reports(place: Workplace, families: Sequence[str]) -> dict[str, StoredReport]:
    """Render the page of every current run anew, by family."""
    from training.report import render_training_report  # matplotlib and templates load slowly

    stored = {}
    for family, folder in zip(families, current_runs(place, families), strict=True):
        stored[family] = StoredReport(folder.name, f"{STORE_PREFIX}/{folder.name}/{REPORT}")
        place.store.put(stored[family].key, render_training_report(folder))
    return stored
