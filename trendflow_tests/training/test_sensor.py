"""The sensor that lets training follow a new dataset of the other location; nothing is trained here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dagster import AssetMaterialization, DagsterInstance, RunRequest, build_sensor_context

from training.assets import TRAINING_DATASET, TrainingResource
from training.definitions import TRAIN_BASELINES, TRAIN_ON_NEW_DATASET, build_definitions

DEFINITIONS = build_definitions(TrainingResource())
SENSOR = DEFINITIONS.resolve_sensor_def(TRAIN_ON_NEW_DATASET)


class Watched:
    """An instance of Dagster with the sensor turned on: every tick goes on from the cursor of the one before."""

    def __init__(self, instance: DagsterInstance) -> None:
        self._instance = instance
        self._cursor: str | None = None

    def built(self, fingerprint: str | None) -> None:
        """Report a dataset; None for the fingerprint is what a person reports by hand in the browser."""
        tags = None if fingerprint is None else {"dagster/data_version": fingerprint}
        self._instance.report_runless_asset_event(AssetMaterialization(TRAINING_DATASET, tags=tags))

    def tick(self) -> list[RunRequest]:
        with build_sensor_context(instance=self._instance, definitions=DEFINITIONS, cursor=self._cursor) as context:
            found = SENSOR.evaluate_tick(context)
        self._cursor = found.cursor
        return list(found.run_requests or [])


@pytest.fixture
def watched() -> Iterator[Watched]:
    with DagsterInstance.ephemeral() as instance:
        yield Watched(instance)


def test_the_sensor_is_off_by_default_and_launches_the_job_of_training() -> None:
    assert SENSOR.default_status.value == "STOPPED"
    assert [target.job_name for target in SENSOR.targets] == [TRAIN_BASELINES]


def test_without_a_dataset_nothing_is_launched(watched: Watched) -> None:
    assert watched.tick() == []


def test_a_dataset_asks_for_training_once(watched: Watched) -> None:
    watched.built("a" * 64)
    assert len(watched.tick()) == 1
    assert watched.tick() == []


@pytest.mark.parametrize(
    "fingerprints",
    [
        ("a" * 64, "a" * 64),  # its run had failed, or the trainer has changed
        ("a" * 64, "b" * 64, "a" * 64),
        ("a" * 64, None, None),
    ],
)
def test_every_dataset_is_launched_also_one_that_was_there_before(
    watched: Watched, fingerprints: tuple[str | None, ...]
) -> None:
    """Dagster launches a run key once for ever, so equal keys would be runs that never start."""
    asked = []
    for fingerprint in fingerprints:
        watched.built(fingerprint)
        asked += watched.tick()
    assert len(asked) == len(fingerprints)
    keys = [request.run_key for request in asked if request.run_key is not None]
    assert len(keys) == len(set(keys))
