"""The card of trained models: what they are for, what they were made of, how good they are, where they end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.compare import Comparison, compare, markdown
from training.gate_texts import gate_summary
from trendflow.contracts.schema_docs import markdown_table
from trendflow.inference.bundle import ModelBundle

_USE = """\
Forecasts of how many views and likes a published video gains within 7, 14 and 21 days, from its first snapshot, its
metadata and, where the dataset has them, features of its content. Each forecast is a median with the interval from
p10 to p90. Meant for comparing and planning; not for judging people, and not for videos of other platforms, ages or
channels than the dataset holds."""
_LIMITS = (
    "What a video gains depends on things no feature holds: recommendations, events, advertising.",
    "Targets are masked where a counter fell or was hidden, so such videos are judged by nothing here.",
    "Intervals are calibrated on the validation part, which also stops the training; only their coverage on the test "
    "part says what they hold. Another time or another mix of channels can break them.",
    "The horizons are forecast by models of their own. Where those contradict each other, or the quantiles of one do, "
    "the forecasts are put in ascending order, as a count only grows; metrics and report say how often.",
    "Judged, and held against the comparators, is the point forecast. What is shown is the median, a model of its own, "
    "the line p50 below: no difference to a comparator was tested for it.",
    "A comparator that a model is not shown to beat, below, is the better choice for that head: it is simpler.",
)


def model_card(folders: Sequence[Path]) -> str:
    """The card of runs on one dataset and split, as Markdown; the same folders give the same text.

    Raises what reading and comparing the runs raises.
    """
    bundles = [ModelBundle.read(folder) for folder in folders]
    return "\n".join(_lines([bundle.manifest for bundle in bundles], [b.metrics for b in bundles], compare(folders)))


def _lines(
    manifests: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]], found: Comparison
) -> Iterator[str]:
    first = manifests[0]
    stamp = "SYNTHETIC " if first["synthetic"] else ""
    yield f"# {stamp}Model card: {', '.join(manifest['model_version'] for manifest in manifests)}"
    yield ""
    if first["synthetic"]:
        yield "**SYNTHETIC: trained on invented data. Nothing here says anything about real videos.**"
        yield ""
    yield from ("## Use", "", _USE, "", "## Models", "")
    heads = ("run", "family", "features", "state", "gate", "libraries")
    yield markdown_table(heads, [_model(*pair) for pair in zip(manifests, metrics, strict=True)])
    yield from ("", "## Data and split", "", markdown_table(("", ""), list(_data(first))), "", "## Evaluation", "")
    judged = "the test part" if metrics[0]["evaluated_on"] == "test" else "the pooled test parts of all folds"
    yield f"On {judged}, on the scale log1p of the gain, with 95 % intervals over channels."
    yield ""
    yield markdown(found)
    yield from ("## Limits", "")
    yield from (f"- {limit}" for limit in _LIMITS)
    yield ""


def _model(manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> tuple[str, ...]:
    used = ("numpy", "scikit-learn", "catboost", "lightgbm")
    return (
        f"`{manifest['training_run_id']}`",
        manifest["model_family"],
        str(len(manifest["feature_names"])),
        manifest["registry_state"],
        gate_summary(metrics["gate"]),
        ", ".join(f"{name} {manifest['library_versions'][name]}" for name in used),
    )


def _data(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    dataset, split = manifest["dataset"], manifest["split"]
    yield "dataset", f"`{dataset['dataset_version']}`"
    yield "fingerprint", f"`{dataset['dataset_fingerprint']}`"
    yield "feature spec", f"{dataset['feature_spec_version']}, `{dataset['feature_spec_hash'][:16]}`"
    yield "split", split["method"] + (", not_time_ordered" if split["not_time_ordered"] else "")
    for name in ("train", "val", "test"):
        yield name, f"{split['n'][name]} videos of {split['n_channels'][name]} channels"
    yield "cuts", f"val from {split['T_val'] or '–'}, test from {split['T_test'] or '–'}"
    yield "left out", ", ".join(f"{count} {reason}" for reason, count in split["dropped"].items()) or "none"
