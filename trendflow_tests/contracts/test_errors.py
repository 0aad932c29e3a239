"""The error taxonomy: the published table, and errors that survive process boundaries."""

from __future__ import annotations

import pickle

import pytest

from trendflow.contracts.errors import ERROR_RULES, MAX_MESSAGE, TrendFlowError, as_typed

TABLE = """
network_error transient 3 75
rate_limited transient 3 75
timeout transient 2 75
storage_unavailable transient 3 75
triton_unavailable transient 2 75
triton_timeout transient 2 75
out_of_memory transient 0 75
source_unavailable permanent 0 4
video_unreadable permanent 0 10
video_file_corrupted permanent 0 4
model_not_found permanent 0 4
model_load_failed permanent 0 4
weights_missing permanent 0 4
insufficient_gpu_memory permanent 0 4
device_unavailable permanent 0 4
triton_bad_response permanent 0 4
internal_error permanent 0 70
cancelled permanent 0 130
input_constraint_violated contract 0 3
config_invalid contract 0 2
dependency_missing contract 0 3
model_spec_invalid contract 0 3
artifact_validation_failed contract 0 3
leakage_violation contract 0 3
"""


def test_rules_are_those_of_the_contract() -> None:
    expected = [tuple(line.split()) for line in TABLE.strip().splitlines()]
    actual = [
        (code, rule.error_class, str(rule.max_retries), str(rule.exit_code)) for code, rule in ERROR_RULES.items()
    ]
    assert sorted(actual) == sorted(expected)


def test_only_transient_errors_may_be_retried() -> None:
    assert all(rule.error_class == "transient" for rule in ERROR_RULES.values() if rule.max_retries)


def test_unknown_codes_cannot_be_raised() -> None:
    with pytest.raises(ValueError, match="surprise"):
        TrendFlowError("surprise", "x")


def test_errors_survive_pickling_with_their_detail() -> None:
    error = pickle.loads(pickle.dumps(TrendFlowError("timeout", "Too slow.", limit_s=3, kind="frames")))
    assert (error.error_code, error.message, error.detail) == ("timeout", "Too slow.", {"limit_s": 3, "kind": "frames"})
    assert str(error) == "timeout: Too slow."


def test_long_messages_are_cut_to_what_meta_may_hold() -> None:
    assert len(TrendFlowError("timeout", "x" * 10_000).message) == MAX_MESSAGE == 500


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (TrendFlowError("model_not_found", "m"), "model_not_found"),
        (KeyboardInterrupt(), "cancelled"),
        (MemoryError(), "out_of_memory"),
        (OSError(28, "No space left on device", "/secret/path"), "storage_unavailable"),
        (FileNotFoundError(2, "missing", "/secret/path"), "internal_error"),
        (ValueError("the text of a comment"), "internal_error"),
    ],
)
def test_foreign_exceptions_become_typed_without_their_text(exc: BaseException, code: str) -> None:
    error = as_typed(exc)
    assert error.error_code == code
    assert "secret" not in str(error)
    assert "comment" not in str(error)
