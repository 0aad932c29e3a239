"""Settings under which both families train on some hundred SYNTHETIC videos within seconds."""

from __future__ import annotations

from typing import Any

QUICK: dict[str, Any] = {
    "hyperparameters": {"iterations": 6, "learning_rate": 0.3},
    "resamples": 100,
    "ablation": False,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "catboost": {**QUICK, "hyperparameters": {**QUICK["hyperparameters"], "depth": 2}, "max_content_features": None},
    "lightgbm": {**QUICK, "max_content_features": None},
}
DIVISION: dict[str, Any] = {
    "split": {"val_point": 0.5, "test_point": 0.75, "min_rows": 10, "min_head_rows": 8},
    "golden": {"max_share": 0.02},
}
