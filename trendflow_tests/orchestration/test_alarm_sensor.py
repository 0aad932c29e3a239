"""The alarm sensor as the daemon ticks it: what it says, what it shows as an asset, and what the service then tells."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from dagster import AssetKey, AssetObservation, DagsterInstance, SensorResult, build_sensor_context

from trendflow.alarms.book import AlarmBook
from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.definitions import build_definitions
from trendflow.orchestration.alarm_sensors import ALARMS, FAILURE_ALARM
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.relaunch_sensor import RETRY_FAILED_RUNS
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.state.global_manager import GlobalManager
from trendflow.state.run_manager import RunManager
from trendflow_tests.state.runs import IDENTITY, PLAN


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    made = Deployment(Settings(home=tmp_path / "home"))
    monkeypatch.setattr(TrendFlowResource, "deployment", property(lambda self: made))
    return made


def end_runs(deployment: Deployment, manager: GlobalManager, status: str, first: int, count: int) -> None:
    """SYNTHETIC runs that ended so; those in error of a timeout."""
    for number in range(first, first + count):
        identity = type(IDENTITY)(**{**IDENTITY.as_dict(), "run_id": f"run-{number}"})
        if status == "error":
            run = RunManager.create(deployment.states, identity, "starter", PLAN, holder="api")
            run.fail(TrendFlowError("timeout", "It took too long."))
        manager.run_status(identity.run_path, status)


def test_an_alarm_is_seen_in_the_tick_the_asset_the_log_and_the_store(
    deployment: Deployment, instance: DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    definitions = build_definitions(deployment)
    sensor = definitions.get_sensor_def(FAILURE_ALARM)
    manager = GlobalManager.open(deployment.states, holder="daemon")

    def tick() -> tuple[str, list[AssetObservation]]:
        with build_sensor_context(instance, resources={"trendflow": TrendFlowResource()}) as context:
            answer = sensor(context)
        assert isinstance(answer, SensorResult)
        assert answer.skip_reason is not None
        return str(answer.skip_reason.skip_message), list(answer.asset_events)

    assert tick() == ("0 ended runs were judged, and no alarm stands.", [])
    end_runs(deployment, manager, "success", 0, 6)
    end_runs(deployment, manager, "error", 6, 2)
    with caplog.at_level(logging.INFO, "trendflow.orchestration.alarm_sensors"):
        said, observed = tick()
        assert said == "8 ended runs were judged. Alarms: success_rate 0.75 (limit 0.8, 8 runs)."
        (observation,) = observed
        assert (observation.asset_key, observation.metadata["standing"].value) == (AssetKey(ALARMS), 1)
        assert "success_rate" in str(observation.metadata["alarms"].value)
        assert tick() == (said, []), "what goes on is not told again"
        [record] = caplog.records
        assert (record.levelno, record.error_code) == (logging.ERROR, "timeout")
        assert [row["rule"] for row in AlarmBook(deployment.store, deployment.schemas).active()] == ["success_rate"]
        end_runs(deployment, manager, "success", 8, 2)
        said, (observation,) = tick()
        assert said == "10 ended runs were judged, and no alarm stands."
        assert (observation.metadata["standing"].value, observation.metadata["ended"].value) == (0, 1)
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.INFO]
    told = "".join(record.getMessage() for record in caplog.records) + str(observation.metadata)
    assert IDENTITY.video_id not in told
    assert "run-" not in told


def test_both_sensors_are_on_and_described(deployment: Deployment) -> None:
    repository = build_definitions(deployment).get_repository_def()
    for name in (FAILURE_ALARM, RETRY_FAILED_RUNS):
        sensor = repository.get_sensor_def(name)
        assert sensor.default_status.value == "RUNNING"
        assert sensor.description
    assert AssetKey(ALARMS) in repository.asset_graph.get_all_asset_keys()
