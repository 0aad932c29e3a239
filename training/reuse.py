"""Finding the run that training would make again: same dataset, same settings, same program and libraries."""

from __future__ import annotations

import json
from pathlib import Path

from training.config import TrainingConfig
from training.manifest import library_versions
from training.program import code_version, trainer_digest
from training.run import TrainingRun
from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.bundle import MANIFEST, ModelBundle


def find_run(artifacts: Path, fingerprint: str, config: TrainingConfig) -> TrainingRun | None:
    """The newest whole run below `artifacts` that training anew would only repeat; None when there is none.

    A run that was compared with a previous model has that comparison in its metrics, so it stands for itself alone. One
    whose files are damaged is as good as none.
    """
    program = {"trainer_digest": trainer_digest(), "library_versions": library_versions()}
    version = f"{config.family}_{code_version()}"
    found = []
    for path in sorted(artifacts.glob(f"*/{MANIFEST}")):
        try:
            manifest = json.loads(path.read_bytes())
            same = (
                manifest["dataset"]["dataset_fingerprint"] == fingerprint
                and manifest["config_digest"] == config.digest
                and manifest["model_version"].endswith(version)
                and all(manifest[key] == value for key, value in program.items())
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if same:
            found.append((manifest["created_at"], path.parent))
    for _, folder in sorted(found, reverse=True):
        try:
            bundle = ModelBundle.read(folder)
        except TrendFlowError:
            continue
        if not any("previous" in head["differences"] for head in bundle.metrics["heads"].values()):
            return TrainingRun(folder, bundle.manifest, bundle.metrics)
    return None
