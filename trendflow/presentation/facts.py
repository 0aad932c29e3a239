"""The words and tables of the report: header facts, notices, components, models, features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trendflow.presentation.formatting import (
    MISSING,
    byte_size,
    clock,
    elapsed,
    fixed,
    moment,
    number,
    plural,
    seconds_between,
    short_hash,
)
from trendflow.presentation.run_view import SEGMENTER, TEXT, Arrays, RunView, features_of
from trendflow.presentation.texts import STATUS_TEXTS, advice, empty_text, warning_text


@dataclass(frozen=True)
class Fact:
    """A labelled value; `full` is what a short form stands for."""

    label: str
    value: str
    full: str = ""
    mono: bool = False


@dataclass(frozen=True)
class Notice:
    """Something the reader should know. `kind` ∈ error, warning, skipped."""

    kind: str
    title: str
    text: str
    code: str


@dataclass(frozen=True)
class ComponentRow:
    name: str
    kind: str
    status: str
    status_text: str
    note: str
    code: str
    time: str
    time_share: float
    origin: str
    versions: Sequence[str]
    models: Sequence[str]
    device: str
    size: str
    digest: str
    digest_full: str
    warnings: Sequence[str]


@dataclass(frozen=True)
class ModelRow:
    role: str
    name: str
    version: str
    engine: str
    precision: str
    device: str
    digest: str
    digest_full: str
    licence: str


@dataclass(frozen=True)
class FeatureTable:
    component: str
    status: str
    status_text: str
    note: str
    rows: Sequence[tuple[str, str, str, str]]
    """(feature, value, unit, why it is missing)"""


def header_facts(view: RunView) -> list[Fact]:
    """What was analysed and by what, in reading order. Facts nobody knows are left out."""
    run = view.run
    source = run["source"]
    duration = view.duration_sec
    facts = [
        Fact("Duration", clock(duration, 1) if duration is not None else MISSING),
        *_geometry(view),
        Fact("Source", " · ".join(filter(None, (_SOURCE_TYPES.get(source["type"], ""), _size(source["bytes"]))))),
        Fact("Submitted", moment(run["created_at"]), run["created_at"]),
        Fact("Finished after", elapsed(1000 * seconds_between(run["created_at"], run["finished_at"]))),
        Fact("From cache", _cache_summary(view)),
        Fact("Profile", run["profile"]),
        Fact("TrendFlow", run["dataprocessor_version"]),
        Fact("Sampling", run["sampling_policy_version"]),
        Fact("Configuration", short_hash(run["config_hash"]), run["config_hash"], mono=True),
        Fact("Source digest", short_hash(source["sha256"]), source["sha256"] or "", mono=True),
    ]
    return [fact for fact in facts if fact.value not in ("", MISSING)]


_SOURCE_TYPES = {"youtube_url": "YouTube", "upload": "upload", "local_path": "local file"}


def _size(count: int | None) -> str:
    return byte_size(count) if count is not None else ""


def _geometry(view: RunView) -> list[Fact]:
    segmenter = view.components.get(SEGMENTER)
    if segmenter is None or segmenter.status != "ok":
        return []
    value = segmenter.feature
    facts = [
        Fact("Picture", f"{value('source_width'):.0f}×{value('source_height'):.0f}"),
        Fact("Frame rate", f"{number(value('source_fps'), 4)} fps{', variable' if value('is_vfr') == 1 else ''}"),
        Fact("Analysed at", f"{value('analysis_width'):.0f}×{value('analysis_height'):.0f}"),
        Fact("Sampled frames", _sampled(view)),
    ]
    if value("audio_present") == 1:
        channels = value("audio_channels")
        facts.append(Fact("Audio", plural(int(channels), "channel") if math.isfinite(channels) else "present"))
    else:
        facts.append(Fact("Audio", "none"))
    return facts


def _sampled(view: RunView) -> str:
    union = len(view.arrays(SEGMENTER).get("union_timestamps_sec", ()))
    decoded = len(view.dense.get("pts_sec", ()))
    return f"{union} of {decoded}" if decoded else str(union)


def _cache_summary(view: RunView) -> str:
    rows = view.manifest["components"]
    hits = sum(bool(row["cache_hit"]) for row in rows)
    return f"{hits} of {len(rows)} components" if rows else ""


def notices(view: RunView) -> list[Notice]:
    """Failures first, then warnings with the components they come from, then what was skipped and why."""
    rows = view.manifest["components"]
    found = [
        Notice(
            "error", f"{row['name']} failed", f"{row['error']} {advice(row['error_code'])}".strip(), row["error_code"]
        )
        for row in rows
        if row["status"] == "error"
    ]
    codes = sorted({*view.run["warnings"], *(code for row in rows for code in row["warnings"])})
    for code in codes:
        warned = [row for row in rows if code in row["warnings"]]
        where = ", ".join(f"{row['name']} ({row['notes']})" if row["notes"] else row["name"] for row in warned)
        if code == "sampling_shortfall":
            where = shortfall_text(view.arrays(SEGMENTER)) or where
        found.append(Notice("warning", warning_text(code), where, code))
    by_cause: dict[str, list[str]] = {}
    for entry in view.run["skipped"]:
        by_cause.setdefault(entry["because"], []).append(entry["name"])
    found += [Notice("skipped", f"Not run: {', '.join(names)}", cause, "") for cause, names in by_cause.items()]
    return found


def shortfall_text(segmenter: Arrays) -> str:
    """Who got fewer frames than its minimum, and how many; "" without the arrays of the Segmenter."""
    if "component_budget" not in segmenter:
        return ""
    names, minima = segmenter["component_names"].tolist(), segmenter["component_budget"][:, 0].tolist()
    counts = np.diff(segmenter["component_indices_row_splits"]).tolist()
    short = [
        f"{name} got {got} of at least {wanted} frames"
        for name, wanted, got in zip(names, minima, counts, strict=True)
        if got < wanted
    ]
    return " · ".join(short)


def component_rows(view: RunView) -> list[ComponentRow]:
    """One row per component of the run, skipped ones at the end."""
    rows = view.manifest["components"]
    longest = max((row["duration_ms"] or 0.0 for row in rows), default=0.0)
    made = [_component_row(row, longest) for row in rows]
    return made + [
        ComponentRow(
            entry["name"], "", "skipped", STATUS_TEXTS["skipped"], entry["because"], "", MISSING, 0.0, MISSING, (), (),
            "", MISSING, MISSING, "", (),
        )
        for entry in view.run["skipped"]
    ]  # fmt: skip


def _component_row(row: Mapping[str, Any], longest: float) -> ComponentRow:
    status = row["status"]
    note = {"empty": empty_text(row["empty_reason"]), "error": row["error"] or ""}.get(status, row["notes"] or "")
    duration = row["duration_ms"] or 0.0
    main = row["artifacts"][0]["content_digest"] if row["artifacts"] else None
    return ComponentRow(
        name=row["name"],
        kind=row["kind"],
        status=status,
        status_text=STATUS_TEXTS[status],
        note=note,
        code=row["empty_reason"] or row["error_code"] or "",
        time=elapsed(row["duration_ms"]),
        time_share=duration / longest if longest else 0.0,
        origin=_origin(row),
        versions=(row["producer_version"], row["schema_version"]),
        models=[model["model_name"] for model in row["models_used"]],
        device=row["device_used"] or "",
        size=byte_size(sum(artifact["size"] for artifact in row["artifacts"])),
        digest=short_hash(main),
        digest_full=main or "",
        warnings=row["warnings"],
    )


def _origin(row: Mapping[str, Any]) -> str:
    if row["status"] == "error":
        return "failed"
    if not row["cache_hit"]:
        return "computed"
    source = row["reused_from"]
    return f"cache (run {short_hash(source['run_id'], 8)})" if source else "cache"


def model_rows(view: RunView) -> list[ModelRow]:
    """The role → model mapping of the run, with what the components report of the models that really ran."""
    used = {model["model_name"]: model for row in view.manifest["components"] for model in row["models_used"]}
    rows = []
    for role, resolved in sorted(view.run["resolved_models"].items()):
        name = resolved["entry"]
        ran = used.get(name, {})
        digest = ran.get("weights_digest")
        rows.append(
            ModelRow(
                role=role,
                name=name,
                version=ran.get("model_version", MISSING),
                engine=_engine(resolved),
                precision=resolved["precision"],
                device=resolved["device"],
                digest=short_hash(digest),
                digest_full=digest or "",
                licence=resolved.get("licence_spdx", ""),
            )
        )
    return rows


def _engine(resolved: Mapping[str, Any]) -> str:
    """The engine, with the server that runs it where there is one; manifests before model servers name no runtime."""
    runtime = resolved.get("runtime", "inprocess")
    return str(resolved["engine"]) if runtime == "inprocess" else f"{resolved['engine']} on {runtime}"


def feature_tables(view: RunView) -> list[FeatureTable]:
    """Every scalar of every component that ran, with its unit or the reason why it is missing."""
    tables = []
    for name, found in view.components.items():
        absent = found.meta.get("absent_features") or {}
        units = view.units.get(name, {})
        rows = [
            (feature, number(value, 5), units.get(feature, "") if math.isfinite(value) else "",
             "" if math.isfinite(value) else missing_reason(feature, absent))
            for feature, value in features_of(found.arrays).items()
        ]  # fmt: skip
        note = empty_text(found.row["empty_reason"]) if found.status == "empty" else found.row["error"] or ""
        tables.append(FeatureTable(name, found.status, STATUS_TEXTS[found.status], note, rows))
    return tables


def missing_reason(feature: str, absent: Mapping[str, str]) -> str:
    """Why a feature is NaN by configuration: its own entry in `absent_features`, else the longest matching prefix."""
    matches = [key for key in absent if feature.startswith(key)]
    return absent[max(matches, key=len)] if matches else "not measurable here"


def text_facts(view: RunView) -> list[Fact]:
    """What was measured of title, description and transcript: counts and flags, never a word of the text."""
    found = view.components.get(TEXT)
    if found is None or found.status != "ok":
        return []
    value = found.feature
    flags = [word for name, word in _TITLE_FLAGS.items() if value(f"tp_lex_title_{name}") == 1]
    facts = [
        Fact("Title", _counted(value("tp_lex_title_len_words"), "word")),
        Fact("Title length", _counted(value("tp_lex_title_len_chars"), "character")),
        Fact("In the title", ", ".join(flags)),
        Fact("Emoji in the title", number(value("tp_lex_title_emoji_count"))),
        Fact("Hashtags", number(value("tp_tags_hashtag_unique_count"))),
        Fact("Description", _counted(value("tp_lex_description_len_words"), "word")),
        Fact("Links", number(value("tp_lex_description_url_count"))),
        Fact("Mentions", number(value("tp_lex_description_mention_count"))),
        Fact("Title and description", f"cosine {fixed(value('tp_cos_title_desc'), 2)}"),
        Fact("Transcript", _counted(value("tp_lex_transcript_len_words"), "word")),
        Fact("Speech rate", f"{number(value('tp_asrproxy_speech_rate_wpm'))} words per min"),
    ]
    return [fact for fact in facts if fact.value and MISSING not in fact.value]


_TITLE_FLAGS = {
    "has_question": "question",
    "has_exclamation": "exclamation",
    "has_number": "number",
    "clickbait_flag": "clickbait phrase",
}


def _counted(count: float, noun: str) -> str:
    return plural(int(count), noun) if math.isfinite(count) else MISSING
