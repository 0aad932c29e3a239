"""A deployment in production refuses what its models' licences forbid."""

from __future__ import annotations

from pathlib import Path

import pytest

from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import resolve_profile


@pytest.mark.parametrize("production", [False, True])
def test_a_production_deployment_refuses_a_profile_with_a_forbidden_licence(
    tmp_path: Path, models_dir: Path, production: bool
) -> None:
    deployment = Deployment(Settings(home=tmp_path / "home", models=models_dir, production=production))
    shipped = deployment.catalogue
    forbidden = shipped["nanodet_m_416"].model_copy(update={"commercial_use": "forbidden"})
    changed = Catalogue({**shipped.entries, forbidden.name: forbidden}, shipped.roles, shipped.unpinned)
    vars(deployment)["catalogue"] = changed
    if not production:
        assert resolve_profile(deployment, "starter")["object_detector"].entry.commercial_use == "forbidden"
        return
    with pytest.raises(TrendFlowError, match="forbids production use") as caught:
        resolve_profile(deployment, "starter")
    assert caught.value.error_code == "config_invalid"
