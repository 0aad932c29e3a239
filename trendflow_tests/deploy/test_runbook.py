"""The runbook names what there is."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DefaultScheduleStatus, DefaultSensorStatus

from trendflow.cli import app
from trendflow.contracts.errors import ERROR_RULES
from trendflow.contracts.graph import load_graph
from trendflow.orchestration.submitting import profile_versions
from trendflow.submission.items import submission_day
from trendflow.submission.request import parse_request

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "operations.md").read_text()


def test_everything_that_ticks_is_listed_with_its_switch() -> None:
    from trendflow.definitions import defs

    repository = defs.get_repository_def()
    ticking = {found.name: found.default_status == DefaultScheduleStatus.RUNNING for found in repository.schedule_defs}
    ticking |= {found.name: found.default_status == DefaultSensorStatus.RUNNING for found in repository.sensor_defs}
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (yes|no) \|", PAGE, re.MULTILINE)
    assert {name: switch == "yes" for name, switch in rows} == ticking


def test_codes_stand_in_their_class() -> None:
    rows = re.findall(r"^\| (transient|permanent|contract) \| ([^|]+) \|", PAGE, re.MULTILINE)
    assert len(rows) == 3
    for name, codes in rows:
        for code in re.findall(r"`(\w+)`", codes):
            assert ERROR_RULES[code].error_class == name


@pytest.mark.parametrize("command", sorted(set(re.findall(r"trendflow ([a-z]+)", PAGE))))
def test_commands_exist(command: str) -> None:
    known = {found.name or found.callback.__name__ for found in app.registered_commands if found.callback}
    assert command in known | {found.name for found in app.registered_groups}


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not on this machine")
def test_the_lines_of_one_run_are_found_among_others() -> None:
    (arguments,) = re.findall(r"\| jq (.+)$", PAGE, re.MULTILINE)
    wanted, other = ({"run_id": name, "message": "text"} for name in ("<run_id>", "another"))
    lines = ["Serving dagster-webserver", json.dumps(other), json.dumps(wanted), "null", '"text"']
    done = subprocess.run(
        ["jq", *shlex.split(arguments)], input="\n".join(lines), text=True, capture_output=True, check=False
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [wanted]


def test_the_submission_that_is_shown_is_one_of_today() -> None:
    page = (REPO / "docs" / "submitting.md").read_text()
    (shown,) = re.findall(r"^trendflow submit .*--submission-id (.+) --wait$", page, re.MULTILINE)
    made = subprocess.run(["sh", "-c", f"echo {shown}"], text=True, capture_output=True, check=True).stdout.strip()
    day = datetime.strptime(submission_day(made), "%Y%m%d").date()
    assert abs(day - datetime.now(UTC).date()) <= timedelta(days=1)


def test_the_request_that_is_shown_is_one_of_this_release() -> None:
    (shown,) = re.findall(r"-d '(\{.+?\})'", (REPO / "docs" / "service.md").read_text(), re.DOTALL)
    request = parse_request(shown.encode())
    graph = load_graph(REPO / "component_graph.yaml")
    versions = profile_versions(graph, request.profile)
    assert {name: getattr(request, name) for name in versions} == versions


def test_links_lead_somewhere() -> None:
    for page in (REPO / "README.md", *(REPO / "docs").glob("*.md"), REPO / "deploy" / "kubernetes.md"):
        text = page.read_text()
        anchors = {
            re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")
            for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        } | set(re.findall(r'<a id="([^"]+)">', text))
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            assert (page.parent / path).exists() if path else anchor in anchors, target
