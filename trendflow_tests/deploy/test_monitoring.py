"""Prometheus, its alerts and the dashboard ask for what the code exposes, and every alert has its page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from trendflow.alarms.rules import Rule
from trendflow_tests.deploy.monitoring import families, family_of, parsed, selectors, unknown

REPO = Path(__file__).resolve().parents[2]
DEPLOY = REPO / "deploy"
RUNBOOK = REPO / "docs" / "operations.md"
FAILURES = "dataprocessor_failures_total"


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana" / "dashboards" / "trendflow.json").read_text())


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in dashboard()["panels"] if panel["type"] != "row")


def expressions() -> list[str]:
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*(rule["expr"] for rule in alerts()), *shown]


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("expression", expressions())
def test_expressions_parse_and_name_what_is_exposed(expression: str) -> None:
    assert unknown(expression) == []


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        (f"sum by (component) (rate({FAILURES}[5m]))", []),
        ("sum(rate(dataprocessor_failure_total[5m]))", ["dataprocessor_failure_total"]),
        (f'{FAILURES}{{error_code="timeout"}}', ["error_code"]),
        (f"sum by (worker) ({FAILURES})", ["worker"]),
        ("dataprocessor_processing_seconds", ["dataprocessor_processing_seconds"]),  # a histogram has parts only
    ],
)
def test_a_renamed_metric_would_be_seen(expression: str, wrong: list[str]) -> None:
    assert unknown(expression) == wrong


def test_an_expression_that_prometheus_refuses_is_refused() -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        parsed("sum by (component (rate(x[5m]))")


def test_the_dashboard_shows_every_metric() -> None:
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    asked = {selector.name for expression in shown for selector in selectors(expression)}
    assert {family_of(name) for name in asked - {"up"}} == set(families())


def test_panels_have_places_of_their_own_and_the_provisioned_source() -> None:
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])} == {
            source["uid"]
        }
        names = [target["refId"] for target in panel["targets"]]
        assert len(names) == len(set(names)) > 0
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/trendflow.yml").read_text())["providers"][0]
    mounts = compose()["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts


def test_every_alert_of_the_deployment_itself_calls_somebody() -> None:
    told = {
        matcher.value
        for rule in alerts()
        for selector in selectors(rule["expr"])
        if selector.name == "dataprocessor_alarms"
        for matcher in selector.matchers.matchers
        if matcher.name == "rule"
    }
    assert told <= set(get_args(Rule))
    # The rate is a metric of its own.
    assert set(get_args(Rule)) - told == {"success_rate"}
    assert any("dataprocessor_runs_success_rate" in rule["expr"] for rule in alerts())


def test_alerts_lead_to_the_runbook() -> None:
    found = anchors(RUNBOOK.read_text())
    for rule in alerts():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert REPO / page == RUNBOOK
        assert anchor in found, rule["alert"]
        words = re.findall(r"[A-Z][a-z]+", rule["alert"])
        assert anchor == "-".join(words).lower()
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_prometheus_asks_services_that_exist() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    services = compose()["services"]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert config["rule_files"] == ["alerts.yml"]
    (target,) = jobs["trendflow-api"]["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert services[name]["environment"]["TRENDFLOW_API_PORT"] == port
    (found,) = jobs["trendflow-worker"]["dns_sd_configs"]
    for worker in found["names"]:
        assert services[worker]["command"][-2:] == ["--metrics-port", str(found["port"])]
    assert {name for name in services if name.startswith("worker")} == set(found["names"])
    assert jobs["trendflow-api"]["authorization"]["credentials_file"] == "/run/secrets/api_token"
    assert services["prometheus"]["secrets"] == ["api_token"]
    asked = {
        matcher.value
        for expression in expressions()
        for selector in selectors(expression)
        if selector.name == "up"
        for matcher in selector.matchers.matchers
    }
    assert asked <= set(jobs)


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on this machine")
def test_alerts_fire_when_they_should() -> None:
    folder = DEPLOY / "prometheus"
    for command in (("check", "config", "--syntax-only", "prometheus.yml"), ("test", "rules", "alerts_test.yml")):
        done = subprocess.run(["promtool", *command], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_of_promtool_know_every_alert() -> None:
    examples = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text())["tests"]
    names = {rule["alert"] for rule in alerts()}
    assert {case["alertname"] for case in examples[0]["alert_rule_test"]} == names
    fired = {sample["labels"] for sample in examples[1]["promql_expr_test"][0]["exp_samples"]}
    assert fired == {f'{{alertname="{name}"}}' for name in names}
