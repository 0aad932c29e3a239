"""The catalogue entry of a variant, ready to be put beside its reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEMPLATE = """\
  # Behind {reference}, whose entry begins with `{reference}: &{reference}`.
  {name}:
    <<: *{reference}
    status: model_trial
    files:
      - path: model.onnx
        sha256: "{sha256}"
        bytes: {bytes}
    source:
      kind: repository
      locator: weights/{name}.onnx
      revision: "{version}"
    precision: {precision}
    derived_from: {reference}
    parity_report_digest: "{digest}"
    notes: >-
      {notes}
"""


def render_entry(report: Mapping[str, Any], sha256: str, digest: str) -> str:
    """YAML for `models/catalogue.yaml`; `sha256` is that of the weights, `digest` that of the report's file.

    Everything that is not different is the reference's: a variant has no facts of its own.
    """
    reference, variant, method = report["reference"], report["variant"], report["method"]
    kept = method.get("layers_in_float")
    how = f"{len(kept)} of {method['layers']} layers stay in float" if kept is not None else method["format"]
    return _TEMPLATE.format(
        name=variant["name"],
        reference=reference["name"],
        sha256=sha256,
        bytes=variant["bytes"],
        version=variant["version"],
        precision=variant["precision"],
        digest=digest,
        notes=f"Made from {reference['name']} {reference['version']} by `trendflow models optimise`; {how}.",
    )
