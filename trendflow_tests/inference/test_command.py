"""`trendflow predict` on a stored SYNTHETIC run: report and page are kept, refusals are one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from trendflow.cli import main
from trendflow.commands.predict import print_forecast
from trendflow.config import load_settings
from trendflow.dataset.stored_tables import CHANNELS, TableStore
from trendflow.dataset.table.enrichment import CHANNELS_V1, Enrichment
from trendflow.inference.report import validate_report
from trendflow.orchestration.dataset_step import store_snapshots
from trendflow.orchestration.deployment import Deployment
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow.storage.tombstones import tombstone_key
from trendflow_tests.dataset.synthetic import store_run
from trendflow_tests.inference.synthetic import SCHEMAS, T0, write_model
from trendflow_tests.presentation.page import Page

VALUES = "views=1200,likes=40,published=2026-03-01T12:00Z,at=2026-03-01T22:00Z,language=en"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment whose store holds one run, of a video whose id looks like an option."""
    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "home"))
    store = tmp_path / "home" / "store"
    store.mkdir(parents=True)
    store_run(ResultStore(ObjectStore.open(store.as_uri())), {"cuts_per_minute": 12.0}, video="-made-up")
    return store


@pytest.fixture
def predict(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trendflow", "predict", "-made-up/run-1", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        return stop.value.code, *capsys.readouterr()

    return run


def test_report_and_page_are_kept_and_written(
    predict: Command, home: Path, metadata_model: Path, tmp_path: Path
) -> None:
    page, document = tmp_path / "page.html", tmp_path / "report.json"
    code, out, _ = predict(
        "--model", str(metadata_model), "--snapshot", VALUES, "-o", str(page), "--json", str(document)
    )
    assert code == 0
    assert "-made-up/run-1  ok" in out
    assert "Views after 14 days" in out
    report = json.loads(document.read_bytes())
    assert validate_report(report, SCHEMAS) == []
    assert "Forecast" in Page(page.read_text("utf-8")).visible
    kept = home / "render_cache/upload/-made-up/run-1"
    assert (kept / "forecast.html").read_bytes() == page.read_bytes()
    assert (kept / "prediction_report.json").read_bytes() == document.read_bytes()


def test_without_a_snapshot_it_says_that_there_is_none(predict: Command, metadata_model: Path) -> None:
    code, out, _ = predict("--model", str(metadata_model), "--request", "v1")
    assert code == 0
    assert "unavailable" in out
    assert "v1 → baseline  model_not_available" in out
    assert "baseline → none  inputs_missing: first_snapshot" in out
    assert "first snapshot none given, none stored" in out


def test_without_a_snapshot_the_stored_one_is_taken_and_said(
    predict: Command, home: Path, metadata_model: Path, tmp_path: Path
) -> None:
    """The same forecast as with the first of the stored snapshots by hand; one that is given goes before it."""
    document = tmp_path / "report.json"
    arguments = ("--model", str(metadata_model), "--json", str(document))

    def views(*snapshot: str) -> tuple[float, float, str]:
        code, out, _ = predict(*arguments, *snapshot)
        assert code == 0
        found = json.loads(document.read_bytes())
        return found["inputs_summary"]["x0_views"], found["outputs"]["heads"]["views_7d"]["absolute_p50"], out

    by_hand = views("--snapshot", VALUES)
    assert by_hand[0] == 1200.0
    assert "first snapshot 2026-03-01T22:00:00.000Z, as given" in by_hand[2]
    table = tmp_path / "stored.csv"
    table.write_text(
        "video_id,snapshot_time,publish_time,views,likes,language\n"
        "-made-up,2026-03-08T22:00Z,2026-03-01T12:00Z,9000,90,en\n"
        "-made-up,2026-03-01T22:00Z,2026-03-01T12:00Z,700,40,en\n"
        "another,2026-03-01T13:00Z,2026-03-01T12:00Z,5,1,en\n"
    )
    store_snapshots(Deployment(load_settings()), [table], collected=False)
    stored = views()
    assert "first snapshot 2026-03-01T22:00:00.000Z, from the stored snapshots" in stored[2]
    assert stored[:2] == views("--snapshot", VALUES.replace("1200", "700"))[:2]
    assert stored[0] == 700.0
    assert views("--snapshot", VALUES)[:2] == by_hand[:2]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("at=2026-03-01", "at=9998-03-01"),
        ("at=2026-03-01", "at=2026-02-01"),
        ("views=1200", "views=-1200"),
        ("views=1200", "views=1e23"),
        ("views=1200", "views=nan"),
    ],
)
def test_an_impossible_snapshot_is_refused_in_one_sentence(
    predict: Command, metadata_model: Path, tmp_path: Path, old: str, new: str
) -> None:
    document = tmp_path / "report.json"
    given = VALUES.replace(old, new)
    assert given != VALUES
    code, out, err = predict("--model", str(metadata_model), "--snapshot", given, "--json", str(document))
    assert (code, out) == (3, "")
    assert err.startswith("input_constraint_violated: ")
    assert err.count("\n") == 1
    assert not document.exists()


def test_heads_that_were_put_in_order_are_named(
    predict: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model forecasts less for later horizons of views, on every row of its training."""
    model, document = write_model(tmp_path / "falling", content=False, falling=True), tmp_path / "report.json"
    code, out, _ = predict("--model", str(model), "--snapshot", VALUES, "--json", str(document))
    assert code == 0
    report = json.loads(document.read_bytes())
    assert {"views_7d", "views_21d"} <= set(report["outputs"]["put_in_order"]["horizons"])
    (line,) = (line for line in out.splitlines() if "Moved to another horizon" in line)
    assert "Views after 7 days" in line
    assert "Views after 21 days" in line
    report["outputs"]["put_in_order"] = {"horizons": [], "levels": ["likes_7d"]}
    print_forecast("key", report)
    told = capsys.readouterr().out
    assert "Moved to another end of the interval: Likes after 7 days." in told
    assert "another horizon" not in told
    report["outputs"]["put_in_order"]["levels"] = []
    print_forecast("key", report)
    assert "put in order" not in capsys.readouterr().out.lower()


def test_a_model_of_other_versions_is_refused(predict: Command, model: Path) -> None:
    code, out, err = predict("--model", str(model), "--snapshot", VALUES)
    assert (code, out) == (3, "")
    assert "model_spec_invalid: The model was trained on cut_detection with version 1.2.0, the run has 1.0.0." in err


@pytest.mark.parametrize(("hours", "known"), [(-3.0, True), (0.5, True), (5.0, False)])
def test_what_was_looked_up_of_the_channel_in_time_is_used_as_in_training(
    predict: Command, home: Path, tmp_path: Path, hours: float, known: bool
) -> None:
    """The first snapshot, at 22:00, does not state the channel; a look-up within its tolerance of an hour does."""
    model, document = write_model(tmp_path / "model", content=False, channel=True), tmp_path / "report.json"
    arguments = ("--model", str(model), "--snapshot", VALUES, "--json", str(document))

    def seen() -> dict[str, Any]:
        assert predict(*arguments)[0] == 0
        found: dict[str, Any] = json.loads(document.read_bytes())["inputs_summary"]
        return found

    assert (seen()["features_missing"], seen()["warnings"]) == (1, ["channel_statistics_missing"])
    row = {
        "platform_id": "upload",
        "video_id": "-made-up",
        "channel_id": "a-channel",
        "channel_subscribers": 5000.0,
        "channel_views": 1e6,
        "channel_videos": 40.0,
        "observed_at": T0 + timedelta(hours=hours),
    }
    table = Enrichment(pa.Table.from_pylist([row], schema=CHANNELS_V1)).to_parquet()
    TableStore(ObjectStore.open(home.as_uri())).put(CHANNELS, {"channels.parquet": table}, {"made_from": "test"})
    assert (seen()["features_missing"], seen()["warnings"]) == (
        (0, []) if known else (1, ["channel_statistics_missing"])
    )


def test_a_deleted_video_is_not_forecast(
    predict: Command, home: Path, metadata_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run may still lie there while the deletion is under way."""
    store = ObjectStore.open(home.as_uri())
    store.put(tombstone_key("upload", "-made-up", b"secret"), b"{}")
    code, _, err = predict("--model", str(metadata_model), "--snapshot", VALUES)
    assert code == 2
    assert "TRENDFLOW_TOMBSTONE_KEY" in err, "without the key nobody can tell whose the tombstone is"
    monkeypatch.setenv("TRENDFLOW_TOMBSTONE_KEY", "secret")
    code, out, err = predict("--model", str(metadata_model), "--snapshot", VALUES)
    assert (code, out) == (3, "")
    assert err == "input_constraint_violated: The video was deleted; nothing is forecast for it.\n"
    store.delete(tombstone_key("upload", "-made-up", b"secret"))
    store.put(tombstone_key("upload", "another", b"secret"), b"{}")
    assert predict("--model", str(metadata_model), "--snapshot", VALUES)[0] == 0


def test_a_synthetic_model_needs_permission(predict: Command, synthetic_model: Path) -> None:
    code, _, err = predict("--model", str(synthetic_model), "--snapshot", VALUES)
    assert code == 3
    assert "SYNTHETIC" in err


def test_bad_values_are_named_and_not_repeated(predict: Command, metadata_model: Path) -> None:
    code, _, err = predict("--model", str(metadata_model), "--snapshot", VALUES.replace("1200", "secret"))
    assert code == 2
    assert "'views'" in err
    assert "secret" not in err


def test_snapshots_of_other_videos_are_no_first_snapshot(
    predict: Command, metadata_model: Path, tmp_path: Path
) -> None:
    table, document = tmp_path / "snapshots.csv", tmp_path / "report.json"
    table.write_text("video_id,snapshot_time,views\nanother-video,2026-03-01T22:00Z,5\n")
    code, _, err = predict("--model", str(metadata_model), "--snapshot", str(table), "--json", str(document))
    assert (code, err) == (3, "dependency_missing: The snapshots given hold none of this video.\n")
    assert not document.exists()
