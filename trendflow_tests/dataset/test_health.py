"""Planted defects in SYNTHETIC corpora: each is found by its rule, and by no other."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time

import numpy as np
import pytest

from trendflow.components.dataset._columns import UNDEFINED
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import validate_document
from trendflow.dataset.feature_table import build_table
from trendflow.dataset.health import Readings, assess
from trendflow.dataset.health_document import read_reference, to_document, to_json
from trendflow.dataset.health_model import ReferenceReport
from trendflow.dataset.health_rules import load_rules
from trendflow_tests.dataset.synthetic import (
    COMPONENT,
    SCHEMAS,
    VERSION,
    check,
    column,
    corpus,
    failing,
    outcome,
    readings,
    record,
    report,
    vector,
)

ROWS = 400
RNG = np.random.default_rng(11)
SOUND = {f"sound_{k}": RNG.normal(size=ROWS) for k in range(6)}


def test_a_sound_corpus_breaks_no_rule() -> None:
    found = report(SOUND)
    assert {result.name: result.verdict for result in found.checks} == {
        "coverage": "pass",
        "nan_rate": "pass",
        "constants": "pass",
        "ranges": "pass",
        "duplicates": "pass",
        "drift": "not_judged",
        "provenance": "pass",
        "reproducibility": "not_judged",
        "empties": "pass",
    }
    assert found.findings == []
    assert not found.passed, "what was not judged has not passed"


NEAR_CONSTANT = np.where(np.arange(ROWS) < 2, RNG.normal(size=ROWS), 0.25)  # 99.5 %
PLANTED = {
    "constants": {
        "constant": np.full(ROWS, 3.0),
        "near_constant": NEAR_CONSTANT,
        "uniform_entropy": 2.3024 + 1e-4 * RNG.random(ROWS),
        "own_percentile": 0.25 + 0.005 * RNG.standard_normal(ROWS).clip(-2, 2),
    },
    "ranges": {
        "infinite": np.r_[np.inf, RNG.normal(size=ROWS - 1)],
        "short_ratio": np.where(np.arange(ROWS) == 7, 1.2, RNG.random(ROWS)),
    },
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_columns_are_found_by_their_rule_alone(name: str) -> None:
    found = report({**PLANTED[name], **SOUND})
    assert failing(found, name) == sorted(PLANTED[name])
    assert {finding.check for finding in found.findings} == {name}


@pytest.mark.parametrize(
    ("values", "severity"), [(NEAR_CONSTANT, "error"), (PLANTED["constants"]["own_percentile"], "warning")]
)
def test_one_value_is_worse_than_a_narrow_range(values: np.ndarray, severity: str) -> None:
    (finding,) = check(report({**SOUND, "dull": values}), "constants").findings
    assert (finding.severity, finding.advisory) == (severity, False)


def test_ninety_eight_percent_of_one_value_still_vary() -> None:
    assert failing(report({"mostly": np.where(np.arange(ROWS) < 8, RNG.normal(size=ROWS), 0.0)}), "constants") == []


@pytest.mark.parametrize("distinct", [True, False])
def test_a_constant_needs_two_hundred_different_files(distinct: bool) -> None:
    records = [record(number, source_sha256=f"{number if distinct else number % 150:064x}") for number in range(ROWS)]
    found = report({**SOUND, "constant": np.zeros(ROWS)}, records=records)
    result = check(found, "constants")
    assert found.n_sources == (ROWS if distinct else 150)
    assert result.verdict == ("fail" if distinct else "not_judged")
    assert [finding.advisory for finding in result.findings] == [not distinct]
    if not distinct:
        assert "not enough runs: 150 of 200" in result.summary


def test_a_registered_reason_excuses_a_constant() -> None:
    rules = dataclasses.replace(load_rules(), constants=((re.compile(column("rare_.*")), "It is rare."),))
    found = assess(readings({**SOUND, "rare_event": np.zeros(ROWS)}), rules=rules)
    assert check(found, "constants").verdict == "pass"
    assert [finding.text for finding in check(found, "constants").findings] == [
        f"100 % of {ROWS} values are 0. It is rare."
    ]


def test_every_registered_reason_is_of_a_column_there_is() -> None:
    declared = {f"{schema.producer}__{name}__value" for schema in SCHEMAS for name in schema.features if schema.fields}
    for pattern, reason in load_rules().constants:
        assert any(pattern.fullmatch(name) for name in declared), pattern.pattern
        assert reason


def test_copies_are_found_whatever_the_scale_and_where_rows_are_missing() -> None:
    source = RNG.lognormal(size=ROWS)
    partly = np.where(RNG.random(ROWS) < 0.4, np.nan, -3 * source + 2)
    found = report(
        {**SOUND, "a": source, "b_affine": partly, "c_monotone": np.log(source)}, reasons={"b_affine": "a test"}
    )
    assert set(failing(found, "duplicates")) == {"a = b_affine", "a = c_monotone", "b_affine = c_monotone"}
    assert {finding.check for finding in found.findings} == {"duplicates"}
    by_name = {health.name: health.duplicates for health in found.columns}
    assert by_name[column("c_monotone")] == (column("a"), column("b_affine"))
    assert by_name[column("sound_0")] == ()


@pytest.mark.parametrize(
    ("reason", "share", "fails"),
    [
        (None, 0.7, True),
        (None, 0.5, False),
        (UNDEFINED, 0.7, True),
        ("audio_silent", 0.7, False),
        ("stated", 0.9, False),
    ],
)
def test_missing_values_need_a_reason(reason: str | None, share: float, fails: bool) -> None:
    values = np.where(np.arange(ROWS) < share * ROWS, np.nan, RNG.normal(size=ROWS))
    found = report({**SOUND, "rare": values}, reasons={"rare": reason} if reason else {})
    assert failing(found, "nan_rate") == (["rare"] if fails else [])
    health = next(health for health in found.columns if health.name == column("rare"))
    assert health.statistics.nan_rate == pytest.approx(share)
    assert health.coverage == pytest.approx(1 - share)
    expected = {reason or "no reason given": round(share * ROWS)}
    assert (health.empty_reasons, health.absent_reasons) == (
        (expected, {}) if reason == "audio_silent" else ({}, expected)
    )


def test_a_failing_component_is_no_reason() -> None:
    records = [record(k, outcomes={COMPONENT: outcome(status="error", error_code="timeout")}) for k in range(ROWS)]
    gone = {name: np.full(ROWS, np.nan) for name in SOUND}
    found = report(gone, records=records, reasons=dict.fromkeys(gone, "cut_detection gave no result"))
    assert failing(found, "nan_rate") == sorted(SOUND)
    (component,) = found.components
    assert (component.statuses, component.errors) == ({"error": ROWS}, {"timeout": ROWS})


def reference_of(columns: dict[str, np.ndarray]) -> ReferenceReport:
    return read_reference(to_json(report(columns)), SCHEMAS)


def test_a_corpus_has_not_drifted_from_itself() -> None:
    ties = {**SOUND, "tenths": np.round(SOUND["sound_0"], 1) / 3}
    found = report(ties, reference_of(ties))
    assert check(found, "drift").verdict == "pass"
    for health in found.columns:
        assert health.drift is not None
        assert health.drift.ks <= 0.5 / 201 + 1 / ROWS + 1e-9
        assert health.drift.ks_p == 1.0


def test_a_shift_by_one_deviation_is_drift() -> None:
    moved = {**{name: RNG.normal(size=ROWS) for name in SOUND}, "sound_2": RNG.normal(1.0, size=ROWS)}
    found = report(moved, reference_of(SOUND))
    assert failing(found, "drift") == ["sound_2"]
    health = next(health for health in found.columns if health.name == column("sound_2"))
    assert health.drift is not None
    assert health.drift.ks == pytest.approx(2 * 0.6915 - 1, abs=0.06)  # 2 Φ(½) − 1
    assert health.drift.psi > 0.25


def test_missing_values_that_spread_are_found_against_the_reference() -> None:
    gaps = {**SOUND, "gappy": np.where(np.arange(ROWS) % 10 == 0, np.nan, SOUND["sound_1"] ** 2)}
    more = {**SOUND, "gappy": np.where(np.arange(ROWS) % 4 == 0, np.nan, SOUND["sound_1"] ** 2)}
    before = reference_of(gaps)
    assert failing(report(more, before), "nan_rate") == ["gappy"]
    assert failing(report(gaps, before), "nan_rate") == []


def test_another_version_is_another_quantity_and_is_not_compared() -> None:
    before = reference_of(SOUND)
    before = dataclasses.replace(before, versions={COMPONENT: ("0.9.0", *VERSION[1:])})
    found = report({name: values + 9 for name, values in SOUND.items()}, before)
    assert all(health.drift is None for health in found.columns)
    assert [(f.subject, f.advisory) for f in check(found, "drift").findings] == [(COMPONENT, True)]


@pytest.mark.parametrize("part", [0, 2], ids=["producer", "signature"])
def test_mixed_versions_fail_and_do_not_mix(part: int) -> None:
    """A tenth of the runs comes from another program, whose values are all 1000 higher."""
    other = tuple("9.9.9" if part == 0 == k else "a" * 64 if part == 2 == k else text for k, text in enumerate(VERSION))
    rows = []
    for number in range(ROWS):
        strange = number % 10 == 0
        values = {name: float(values[number]) + 1000 * strange for name, values in SOUND.items()}
        version = other if strange else VERSION
        rows.append(
            (record(number, outcomes={COMPONENT: outcome(version=version)}), vector(values, versions=version[:2]))
        )
    records = [row for row, _ in rows]
    found = assess(Readings(corpus(records), build_table(rows, SCHEMAS)))
    assert failing(found, "provenance") == [COMPONENT]
    for health in found.columns:
        assert health.statistics.n_rows == ROWS * 9 // 10
        assert health.statistics.p99 < 10


def test_one_failed_run_is_no_second_version() -> None:
    rows = [(record(k), vector({"a": k % 7})) for k in range(40)]
    failed = record(40, outcomes={COMPONENT: outcome(status="error", version=("1.0.0", VERSION[1], "b" * 64))})
    rows.append((failed, vector({"a": math.nan})))
    found = assess(Readings(corpus([row for row, _ in rows]), build_table(rows, SCHEMAS)))
    assert check(found, "provenance").verdict == "pass"
    assert found.columns[0].statistics.n_rows == 41


def test_other_configurations_are_named() -> None:
    found = report(SOUND, set_aside={("e" * 64, "sampling_v1"): 3})
    assert failing(found, "provenance") == ["configuration"]


@pytest.mark.parametrize(
    ("noise", "cached", "verdict"), [(5e-4, False, "pass"), (2e-3, False, "fail"), (2e-3, True, "not_judged")]
)
def test_a_repetition_agrees_within_a_thousandth_of_the_spread(noise: float, cached: bool, verdict: str) -> None:
    made = readings(SOUND)
    newer = dataclasses.replace(made.table.records[0], outcomes={COMPONENT: outcome(cache_hit=cached)})
    older = dataclasses.replace(newer, run_path="upload/synthetic-0/run-0", outcomes={COMPONENT: outcome()})
    spread = {name: float(values.astype(np.float32).std()) for name, values in SOUND.items()}
    twin = vector({name: float(values[0]) + noise * spread[name] for name, values in SOUND.items()})
    table = dataclasses.replace(made.table, records=(newer, *made.table.records[1:]))
    repeated = dataclasses.replace(made.corpus, repeats=((newer, older),))
    found = assess(Readings(repeated, table, [(older, twin)]))
    assert check(found, "reproducibility").verdict == verdict
    assert found.reproducibility.pairs == (not cached)


def test_a_value_that_comes_and_goes_is_no_agreement() -> None:
    made = readings(SOUND)
    newer = made.table.records[0]
    older = dataclasses.replace(newer, run_path="upload/synthetic-0/run-0")
    twin = vector({name: math.nan if name == "sound_3" else float(values[0]) for name, values in SOUND.items()})
    found = assess(Readings(dataclasses.replace(made.corpus, repeats=((newer, older),)), made.table, [(older, twin)]))
    assert found.reproducibility.columns == {column("sound_3"): 1}
    assert check(found, "reproducibility").verdict == "fail"


@pytest.mark.parametrize(("documents", "fails"), [(100, True), (0, False)])
def test_an_empty_counts_where_its_subject_was_announced(documents: int, fails: bool) -> None:
    empty = outcome(status="empty", empty_reason="no_text_available")
    records = [
        record(k, has_document=k < documents, outcomes={COMPONENT: empty if k < 50 else outcome()}) for k in range(ROWS)
    ]
    assert failing(report(SOUND, records=records), "empties") == ([COMPONENT] if fails else [])


def test_videos_without_a_vector_lower_the_coverage() -> None:
    lost = tuple(record(ROWS + k, successful=False, vector_digest=None) for k in range(40))
    made = readings(SOUND)
    found = assess(dataclasses.replace(made, corpus=dataclasses.replace(made.corpus, latest=made.corpus.latest + lost)))
    assert failing(found, "coverage") == ["feature_vector"]
    assert (found.n_videos, found.n_rows) == (ROWS + 40, ROWS)


def test_a_stored_report_is_valid_and_names_no_video() -> None:
    found = report({**SOUND, "short_ratio": np.full(ROWS, 1.5), "gone": np.full(ROWS, np.nan)}, reference_of(SOUND))
    assert any(finding.examples for finding in found.findings)
    document = json.loads(to_json(found))
    assert validate_document(SCHEMAS, "feature_health_v1", document) == []
    assert document == to_document(found)
    assert "synthetic-" not in to_json(found).decode()


@pytest.mark.parametrize(
    "data",
    [b"not json", pytest.param(b"[" * 100_000, id="deep"), b"[]", b"{}", b'{"schema_version": "feature_health_v1"}'],
)
def test_what_is_no_report_is_no_reference(data: bytes) -> None:
    with pytest.raises(TrendFlowError) as caught:
        read_reference(data, SCHEMAS)
    assert caught.value.error_code == "config_invalid"


def test_the_order_of_runs_is_no_input() -> None:
    order = RNG.permutation(ROWS)
    columns = {**SOUND, "copy": -SOUND["sound_0"], "constant": np.zeros(ROWS)}
    one = to_document(report(columns))
    shuffled = {name: values[order] for name, values in columns.items()}
    other = to_document(report(shuffled, records=[record(int(k)) for k in order]))
    assert _rounded(one) == _rounded(other)


def _rounded(value: object) -> object:
    """Without the clock, and without the last digits of sums that were added in another order."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items() if key != "created_at"}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 9) if isinstance(value, float) else value


def test_two_thousand_runs_take_seconds() -> None:
    """Quadratic in columns, linear in runs; a pair at a time in Python would take minutes."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2000, 250)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    made = readings({f"f{k:03d}": values[:, k] for k in range(250)})
    started = time.process_time()
    assert len(assess(made).columns) == 250
    assert time.process_time() - started < 5
