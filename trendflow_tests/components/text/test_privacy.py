"""No word of a document reaches anything that is stored or logged."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trendflow.components.text import text_processor
from trendflow.components.text._privacy import require_closed_vocabulary
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.canonical import canonical_json, content_digest
from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.keys import input_digest
from trendflow.contracts.manifest import component_row_from_meta, new_manifest, upsert_row
from trendflow.contracts.meta import build_meta, error_meta
from trendflow.contracts.video_document import VideoDocument
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.components.text.documents import Bench, transcript

IDENTITY = RunIdentity("upload", "my_video", "run_1", "c" * 64, "sampling_v1", "0.1.0")
NOW = "2026-01-01T00:00:00.000Z"
# Words that stand nowhere in the program, one for each place a document has.
CANARIES = ("zquixo", "vlympra", "krothune", "gwelfir", "drixomal", "Übelqyx")
DOCUMENT = VideoDocument(
    title=f"{CANARIES[0]} you won't believe #{CANARIES[1]}",
    description=f"{CANARIES[2]} @{CANARIES[3]} https://{CANARIES[3]}.example/{CANARIES[2]}",
    tags=(CANARIES[4],),
    transcript=transcript((0.0, 4.0, f"{CANARIES[5]} " * 120)),
)


def found_in(data: bytes) -> set[str]:
    """Canaries in any encoding the store could use; numpy keeps text as UTF-32."""
    spellings = {
        canary: {
            form.encode(encoding)
            for form in (canary, canary.lower(), canary.upper(), canary.casefold())
            for encoding in ("utf-8", "utf-16-le", "utf-32-le", "unicode-escape")
        }
        for canary in CANARIES
    }
    return {canary for canary, forms in spellings.items() if any(form in data for form in forms)}


def store(results: ResultStore, artifact: Artifact) -> None:
    """Artifact and manifest row, as the pipeline stores them."""
    spec = text_processor.SPEC
    where = {"producer": spec.name, "producer_version": spec.producer_version, "schema_version": spec.schema_version}
    key = {
        "idempotency_key": "1" * 64,
        "input_digest": input_digest(
            source_sha256="a" * 64, document_digest=DOCUMENT.digest, reference=dict(spec.reference), upstream={}
        ),
    }
    digest = content_digest(spec.name, spec.schema_version, artifact.status, artifact.empty_reason, artifact.arrays)
    meta = build_meta(IDENTITY, artifact, **where, **key, content_digest=digest)
    written = results.write_artifact(IDENTITY.run_path, spec.name, spec.name, artifact.arrays, meta)
    row = component_row_from_meta(
        meta, kind="text", artifacts=[written], started_at=NOW, finished_at=NOW, duration_ms=1.0, notes=artifact.notes
    )
    results.update_manifest(IDENTITY.run_path, lambda manifest: upsert_row(manifest, row))


def stored_bytes(backend: ObjectStore) -> bytes:
    return b"".join(backend.get(info.key) for info in backend.list())


@pytest.fixture
def backend() -> ObjectStore:
    return ObjectStore.open("memory://")


@pytest.fixture
def results(backend: ObjectStore) -> ResultStore:
    results = ResultStore(backend)
    results.create_manifest(new_manifest(IDENTITY, NOW, "starter", {"type": "upload"}, document_digest=DOCUMENT.digest))
    return results


def test_the_search_finds_what_is_there() -> None:
    for canary in CANARIES:
        for data in (
            canary.encode(),
            np.array([canary]).tobytes(),
            canonical_json({"a": canary}),
            canary.upper().encode("utf-16-le"),
        ):
            assert canary in found_in(b"..." + data + b"...")


def test_no_word_of_the_document_is_stored_or_logged(
    bench: Bench, backend: ObjectStore, results: ResultStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    artifact = bench.run(DOCUMENT)
    store(results, artifact)
    stored = stored_bytes(backend)
    assert b"tp_lex_title_clickbait_flag" in stored.replace(b"\0", b"")  # the artifact is among what is searched
    assert DOCUMENT.digest.encode() in stored  # and so is the manifest
    assert found_in(stored) == set()
    assert found_in("\n".join(record.getMessage() for record in caplog.records).encode()) == set()


def test_errors_and_representations_hold_no_word(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        """An encoder whose failure quotes its input."""

        entry, used, device_used = bench.encoder.entry, bench.encoder.used, "cpu"
        infer, embed = bench.encoder.infer, bench.encoder.embed

        def split(self, text: str) -> list[np.ndarray]:
            raise ValueError(text)

    caplog.set_level(logging.DEBUG)
    inputs = replace(bench.inputs(DOCUMENT), models={"text_encoder": Failing()})
    with pytest.raises(ValueError, match=CANARIES[0]) as caught:
        text_processor.run(inputs)
    spec = text_processor.SPEC
    meta = error_meta(
        IDENTITY,
        as_typed(caught.value),
        producer=spec.name,
        producer_version=spec.producer_version,
        schema_version=spec.schema_version,
        idempotency_key=None,
        input_digest=None,
    )
    assert found_in(canonical_json(meta)) == set()
    assert found_in(repr((inputs.document, text_processor._texts(DOCUMENT))).encode()) == set()
    assert found_in(caplog.text.encode()) == set()


@pytest.mark.parametrize(
    "change",
    [
        {"arrays": {"title": np.array("some words")}},
        {"arrays": {"words": np.array(["title", "some"])}},
        {"meta": {"absent_features": {"tp_cos_title_desc": "because of some words"}}},
        {"meta": {"warnings": ["some words"]}},
        {"notes": "some words"},
    ],
)
def test_text_in_a_result_is_refused_without_quoting_it(bench: Bench, change: dict[str, Any]) -> None:
    artifact = bench.run(DOCUMENT)
    vocabulary = text_processor._VOCABULARY
    require_closed_vocabulary(artifact, vocabulary)
    changed = replace(artifact, **{**change, **_joined(artifact, change)})
    with pytest.raises(TrendFlowError) as caught:
        require_closed_vocabulary(changed, vocabulary)
    assert caught.value.error_code == "artifact_validation_failed"
    assert "some words" not in caught.value.message


def _joined(artifact: Artifact, change: dict[str, Any]) -> dict[str, Any]:
    return {name: {**getattr(artifact, name), **value} for name, value in change.items() if isinstance(value, dict)}


@pytest.mark.parametrize(
    "change",
    [
        {"title": "another"},
        {"description": "another"},
        {"tags": ("another",)},
        {"language": "de"},
        {"transcript": None},
        {"transcript": transcript((0.0, 4.0, "another"))},
    ],
)
def test_another_document_has_another_key(change: dict[str, Any]) -> None:
    digests = {
        input_digest(source_sha256="a" * 64, document_digest=document.digest, reference={}, upstream={})
        for document in (DOCUMENT, replace(DOCUMENT, **change))
    }
    assert len(digests) == 2
