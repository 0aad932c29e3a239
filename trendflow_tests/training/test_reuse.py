"""A run is taken again only where training would repeat it."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from training import cli, reuse
from training.config import TrainingConfig
from training.program import trainer_files
from training.reuse import find_run
from training.run import TrainingRun
from trendflow.contracts.source_digest import source_digest

Damage = Callable[[Path], Any]


@pytest.fixture
def artifacts(run: TrainingRun, tmp_path: Path) -> Path:
    shutil.copytree(run.folder, tmp_path / run.folder.name)
    return tmp_path


def fingerprint(run: TrainingRun) -> str:
    return str(run.manifest["dataset"]["dataset_fingerprint"])


def test_the_same_work_is_found(run: TrainingRun, quick: TrainingConfig, artifacts: Path) -> None:
    found = find_run(artifacts, fingerprint(run), quick)
    assert found is not None
    assert found.folder == artifacts / run.folder.name
    assert (found.manifest, found.metrics) == (run.manifest, run.metrics)


def test_the_newest_of_equals_is_taken(run: TrainingRun, quick: TrainingConfig, artifacts: Path) -> None:
    later = artifacts / "later"
    shutil.copytree(run.folder, later)
    _edit(later, created_at="2999-01-01T00:00:00.000Z")
    found = find_run(artifacts, fingerprint(run), quick)
    assert found is not None
    assert found.folder == later


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"family": "catboost"}, {"resamples": 101}, {"hyperparameters": {"iterations": 31}}]
)
def test_other_settings_are_other_work(
    run: TrainingRun, quick: TrainingConfig, artifacts: Path, changed: dict[str, Any]
) -> None:
    assert find_run(artifacts, fingerprint(run), quick.model_copy(update=changed)) is None


def test_another_dataset_is_other_work(quick: TrainingConfig, artifacts: Path) -> None:
    assert find_run(artifacts, "0" * 64, quick) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: next(folder.glob("models/*/*")).write_bytes(b"other"),
        lambda folder: next(folder.glob("models/*/*")).unlink(),
        lambda folder: (folder / "metrics.json").write_bytes(b"{}"),
        lambda folder: (folder / "training_run_manifest.json").write_bytes(b"["),
        lambda folder: _edit(folder, library_versions={"python": "2.7"}),
        lambda folder: _edit(folder, model_version="SYNTHETIC_baseline_lightgbm_0.0.1"),
        lambda folder: _edit(folder, trainer_digest="0" * 64),
    ],
    ids=[
        "changed model",
        "lost model",
        "changed metrics",
        "no manifest",
        "other libraries",
        "other trainer",
        "other source",
    ],
)
def test_a_run_that_is_not_whole_or_not_of_this_program_is_none(
    run: TrainingRun, quick: TrainingConfig, artifacts: Path, damage: Damage
) -> None:
    damage(artifacts / run.folder.name)
    assert find_run(artifacts, fingerprint(run), quick) is None


def test_the_digest_of_the_trainer_covers_all_that_it_imports() -> None:
    """Whatever a counted module takes from training, inference or dataset counts too, but for what reads and writes,
    and for what made the dataset: its fingerprint covers that."""
    counted = trainer_files()
    assert {"fold.py", "splits.py", "metrics.py", "catboost.py", "quantiles.py", "boosters.py", "reader.py"} <= {
        path.name for path in counted
    }
    packages = ("training.", "trendflow.inference.", "trendflow.dataset.")
    reads_and_writes = {
        "trendflow.inference.bundle",
        "trendflow.inference.stored_runs",
        "training.report",
        "trendflow.dataset.parquet",
        "trendflow.dataset.snapshots.tables",
        "trendflow.dataset.table.description",
        "trendflow.dataset.table.files",
    }
    known = {path.resolve() for path in counted}
    for path in counted:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(packages):
                if node.module in reads_and_writes:
                    continue
                spec = find_spec(str(node.module))
                assert spec is not None
                assert Path(str(spec.origin)).resolve() in known, f"{path.name} imports {node.module}"


def test_a_fault_of_the_program_is_not_taken_for_a_missing_run(
    run: TrainingRun, quick: TrainingConfig, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable() -> str:
        raise OSError("source of the program")

    monkeypatch.setattr(reuse, "trainer_digest", unreadable)
    with pytest.raises(OSError, match="source of the program"):
        find_run(artifacts, fingerprint(run), quick)


def test_a_default_that_is_written_out_is_the_same_work() -> None:
    assert TrainingConfig(family="catboost", hyperparameters={"depth": 8}).digest == TrainingConfig().digest
    assert TrainingConfig(family="catboost", hyperparameters={"depth": 7}).digest != TrainingConfig().digest


def test_the_digest_follows_the_code_and_not_its_comments(tmp_path: Path) -> None:
    [fold] = [path for path in trainer_files() if path.name == "fold.py"]
    text = fold.read_text(encoding="utf-8")
    digests = []
    for number, changed in enumerate(
        [text, f"# a comment\n{text}", text.replace("(TRAIN, VAL, TEST)", "(VAL, TRAIN, TEST)")]
    ):
        path = tmp_path / str(number) / "fold.py"
        path.parent.mkdir()
        path.write_text(changed, encoding="utf-8")
        digests.append(source_digest([path]))
    assert digests[0] == digests[1] != digests[2]


def test_the_commands_reuse_a_run_and_write_its_card(
    run: TrainingRun,
    dataset_folder: Path,
    quick: TrainingConfig,
    artifacts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = artifacts / "quick.yaml"
    config.write_text(json.dumps(quick.model_dump(mode="json")), encoding="utf-8")
    printed = _command(
        monkeypatch, capsys, "train", dataset_folder, "--config", config, "--artifacts", artifacts, "--reuse"
    )
    folder = artifacts / run.folder.name
    assert printed.splitlines()[0] == str(folder)
    assert [path for path in artifacts.iterdir() if path.is_dir()] == [folder]
    card = _command(monkeypatch, capsys, "card", folder)
    assert card.startswith("# SYNTHETIC Model card: SYNTHETIC_baseline_lightgbm_")
    split = run.manifest["split"]
    for part in ("train", "val", "test"):
        assert f"| {part} | {split['n'][part]} videos of {split['n_channels'][part]} channels |" in card
    for name, head in run.metrics["heads"].items():
        cell = head["model"]["overall"]
        assert f"### {name} (n = {cell['n']}, {cell['n_channels']} channels)" in card
        assert f"{cell['rmse']['value']:.3f} [{cell['rmse']['low']:.3f}, {cell['rmse']['high']:.3f}]" in card
        [line] = [line for line in _section(card, name) if line.startswith("| lightgbm, p50 |")]
        assert f"{head['p50']['overall']['mae']['value']:.3f} [" in line


def _command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setattr("sys.argv", ["training", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main()
    printed = capsys.readouterr()
    assert stop.value.code == 0, printed.err
    return printed.out


def _section(card: str, head: str) -> list[str]:
    return card.partition(f"### {head} ")[2].partition("###")[0].splitlines()


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "training_run_manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}), encoding="utf-8")
