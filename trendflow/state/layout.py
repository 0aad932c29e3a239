"""Where the state of runs and of the deployment lies in the object store."""

from __future__ import annotations

import re

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import validate_run_id, validate_video_id
from trendflow.contracts.vocab import PROCESSORS

GLOBAL_FOLDER = "state/_global"
EXPORT_NAME = "state_events.jsonl"
REPORT_NAME = "scheduler_runtime_report.json"
REQUEST_NAME = "run_request.json"
"""What the run was asked for. It lies beside the state, and is needed for as long as the run may be computed again."""

GLOBAL, RUN, CONTROL = "global", "run", "control"
"""Managers besides those of the processors, which bear the names of these. `control` owns no file: it asks."""

_DIGITS = 12
_EVENT = re.compile(r"[0-9]{12}\.json\Z")
_FILES = {
    GLOBAL: "state_level1_global.json",
    RUN: "run_state.json",
    **{processor: f"state_{processor}.json" for processor in sorted(PROCESSORS)},
}


def run_folder(run_path: str) -> str:
    """Folder of a run `<platform_id>/<video_id>/<run_id>`. Raises `input_constraint_violated` for anything else."""
    platform_id, _, rest = run_path.partition("/")
    video_id, _, run_id = rest.partition("/")
    validate_video_id(platform_id, video_id)
    validate_run_id(run_id)
    return f"state/{run_path}"


def file_key(folder: str, manager: str) -> str:
    """Key of the state file that `manager` writes."""
    return f"{folder}/{_FILES[manager]}"


def export_key(folder: str) -> str:
    return f"{folder}/{EXPORT_NAME}"


def report_key(folder: str) -> str:
    return f"{folder}/{REPORT_NAME}"


def request_key(run_path: str) -> str:
    return f"state/{run_path}/{REQUEST_NAME}"


def events_folder(folder: str) -> str:
    return f"{folder}/events"


def event_key(folder: str, seq: int) -> str:
    if not 0 < seq < 10**_DIGITS:
        raise TrendFlowError("artifact_validation_failed", "The log is full.", seq=seq)
    return f"{events_folder(folder)}/{seq:0{_DIGITS}d}.json"


def event_number(key: str) -> int | None:
    """Sequence number of an event object, None for anything else that lies in the folder."""
    name = key.rpartition("/")[2]
    return int(name[:_DIGITS]) if _EVENT.match(name) else None
