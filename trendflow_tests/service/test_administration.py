"""Who administrators are, and what only they may do."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.service.users import Users
from trendflow_tests.service.deployment import Keeper, assert_refused, client, make_parts, served
from trendflow_tests.submission.desks import Deployment


def test_deletion_and_retention_belong_to_administrators() -> None:
    keeper = Keeper()
    parts = make_parts(Deployment(), erasure=keeper, retention=keeper)
    with served(parts) as address, client(address) as admin, client(address, "premium-token") as other:
        assert_refused(other.delete("/api/v1/videos/upload/my-video"), 403, "input_constraint_violated")
        refused = other.post("/api/v1/admin/retention/cleanup", json={"dry_run": True})
        assert_refused(refused, 403, "input_constraint_violated")
        assert keeper.asked == []

        answer = admin.delete("/api/v1/videos/upload/my-video")
        assert answer.status_code == 202
        assert admin.get(answer.json()["report_url"]).json() == {"done": True}
        assert_refused(admin.get("/api/v1/deletions/other"), 404, "dependency_missing")
        assert_refused(admin.delete("/api/v1/videos/vimeo/my-video"), 400, "input_constraint_violated")
        assert admin.post("/api/v1/admin/retention/cleanup", json={"dry_run": True}).json() == {"bytes": 0}
    assert keeper.asked == [("upload", "my-video", "user-admin"), True]


def test_what_a_deployment_does_not_have(api: httpx.Client) -> None:
    assert_refused(api.delete("/api/v1/videos/upload/my-video"), 501, "config_invalid")
    assert_refused(api.post("/api/v1/admin/retention/cleanup", json={}), 501, "config_invalid")


def test_users_come_from_a_file_that_holds_no_token(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    file = tmp_path / "users.json"
    file.write_text(json.dumps([{"token_sha256": digest, "user_id": "ann", "tier": "premium"}]))
    users = Users.load(file)
    found = users.of_token(b"secret")
    assert found is not None
    assert (found.user_id, found.tier, found.admin) == ("ann", "premium", False)
    assert users.of_token(b"Secret") is None
    for broken in ("{}", "[]", "no json", json.dumps([{"token_sha256": "x", "user_id": "ann"}])):
        file.write_text(broken)
        with pytest.raises(TrendFlowError, match="config_invalid"):
            Users.load(file)
