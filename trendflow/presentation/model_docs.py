"""The page of model variants: what each gains in speed and loses in agreement, from the stored parity reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trendflow.contracts.schema_docs import markdown_table
from trendflow.models.catalogue import Catalogue

_HEAD = """\
# Model variants

Written by `trendflow models table` from the parity reports in `models/parity/`; a test keeps it current.

- A variant is made from its reference by `trendflow models optimise` and has its own digest, so it has its own
  `model_signature`: results of the two are never mixed. A profile chooses one under `models:` of
  `component_graph.yaml`.
- Calibration and choice of the layers in float use the first part of every video, the measures below the rest.
- Speed is the median ratio of the two models run in turn, on one thread of a processor or on the GPU that a TensorRT
  plan was built for; it holds there only.
- *Move of scalars* is that of the scalar of the component that changes most: the root mean square of its change over
  the videos, in standard deviations of the scalar over the videos, and its largest change in one of them. The limit is
  0.1 of the first, whose square is the share of variance that the variant adds as noise; the second would grow with the
  number of videos. A move is unbounded where a constant changes, or what was measured becomes NaN. Both rest on the
  videos that are listed with the variant: few of them hold the rarer objects, and a single count can move them.
- A variant that misses a limit, or is not faster, is not published: it is no entry of the catalogue."""

_METRICS = {
    "cosine_mean": "mean cosine",
    "cosine_min": "least cosine",
    "f1": "F1 of matched boxes",
    "score_error_mean": "mean score error",
    "spearman_mean": "mean Spearman",
    "top1_agreement": "top-1 agreement",
    "probability_error_max": "largest probability error",
    "endpoint_error_mean_px": "mean endpoint error (px)",
}


def render_variants(catalogue: Catalogue, reports: Sequence[Mapping[str, Any]]) -> str:
    """The page; `reports` in the order of its rows."""
    overview = markdown_table(
        ("variant", "role", "published", "speed", "size", "agreement with the reference", "move of scalars"),
        (_row(catalogue, report) for report in reports),
    )
    return "\n\n".join((_HEAD, overview, *(_chapter(report) for report in reports))) + "\n"


def _row(catalogue: Catalogue, report: Mapping[str, Any]) -> tuple[str, ...]:
    reference, variant = report["reference"], report["variant"]
    return (
        f"[{variant['name']}](#{variant['name']})",
        ", ".join(catalogue[reference["name"]].roles),
        "yes" if report["published"] else "**no**",
        f"{report['speed']['speedup']:.2f}×",
        f"{variant['bytes'] / 1e6:.1f} MB, {variant['bytes'] / reference['bytes']:.2f} of {reference['name']}",
        "<br>".join(
            f"{_METRICS[limit['metric']]} {_value(report['metrics'][limit['metric']])} "
            f"({'≥' if limit['relation'] == '>=' else '≤'} {limit['bound']:g})"
            for limit in report["limits"]
        ),
        _move(report),
    )


def _value(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _move(report: Mapping[str, Any]) -> str:
    moves = report["scalars"]["moved_std"]
    unbounded = sorted(name for name, move in moves.items() if move is None)
    if unbounded:
        return f"unbounded: {', '.join(unbounded)}"
    name = max(moves, key=moves.__getitem__)
    return f"{moves[name]:.3f}, in one video {report['scalars']['largest_std'][name]:.3f} ({name})"


def _chapter(report: Mapping[str, Any]) -> str:
    variant, method, speed = report["variant"], report["method"], report["speed"]
    how = f"{method['format']}"
    if "layers_in_float" in method:
        how += (
            f", activations {method['activations']}, weights {method['weights']}, ranges by {method['calibration']}; "
            f"{len(method['layers_in_float'])} of {method['layers']} layers stay in float"
        )
    plan = report.get("plan")
    where = (
        f"{plan['gpu']} with driver {plan['driver']} and TensorRT {plan['tensorrt']}, where alone it runs"
        if plan
        else speed["cpu"]
    )
    lines = [
        f'## <a id="{variant["name"]}"></a>{variant["name"]}',
        f"{how}. {speed['reference_ms']:.1f} ms become {speed['variant_ms']:.1f} ms per batch of {speed['batch']} on "
        f"{where}.",
    ]
    if report["reasons"]:
        lines.append(f"Not published: {'; '.join(report['reasons'])}.")
    lines.append(
        markdown_table(
            ("video", "sha256", "frames to calibrate", "frames to judge"),
            (
                (
                    video["name"],
                    f"`{video['sha256'][:16]}`",
                    str(video["calibration_frames"]),
                    str(video["held_out_frames"]),
                )
                for video in report["videos"]
            ),
        )
    )
    return "\n\n".join(lines)
