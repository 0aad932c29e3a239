"""The catalogue entry of a variant, ready to be put beside its reference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

_TEMPLATE = """\
  # Behind {reference}, whose entry begins with `{reference}: &{reference}`.
  {name}:
    <<: *{reference}
    status: model_trial
    files:
      - path: {path}
        sha256: "{sha256}"
        bytes: {bytes}
    source:
      kind: repository
      locator: weights/{file}
      revision: "{version}"
{plan}    precision: {precision}
    derived_from: {reference}
    parity_report_digest: "{digest}"
    notes: >-
      {notes}
"""

_PLAN = """\
    engine: tensorrt
    device_policy: cuda
    plan:
{facts}
"""


def variant_file(report: Mapping[str, Any]) -> str:
    """Name of the file that holds the variant, below the shipped `models/weights`."""
    return f"{report['variant']['name']}.{'plan' if 'plan' in report else 'onnx'}"


def render_entry(report: Mapping[str, Any], sha256: str, digest: str) -> str:
    """YAML for `models/catalogue.yaml`; `sha256` is that of the weights, `digest` that of the report's file.

    Everything that is not different is the reference's: a variant has no facts of its own.
    """
    reference, variant, method = report["reference"], report["variant"], report["method"]
    kept = method.get("layers_in_float")
    how = f"{len(kept)} of {method['layers']} layers stay in float" if kept is not None else method["format"]
    file = variant_file(report)
    return _TEMPLATE.format(
        name=variant["name"],
        reference=reference["name"],
        path=f"model{PurePosixPath(file).suffix}",
        sha256=sha256,
        bytes=variant["bytes"],
        file=file,
        version=variant["version"],
        plan=_plan(report["plan"]) if "plan" in report else "",
        precision=variant["precision"],
        digest=digest,
        notes=f"Made from {reference['name']} {reference['version']} by `trendflow models optimise`; {how}.",
    )


def _plan(plan: Mapping[str, str]) -> str:
    # A JSON string is a YAML string, and versions without quotes would be numbers.
    return _PLAN.format(facts="\n".join(f"      {name}: {json.dumps(value)}" for name, value in plan.items()))
