"""Metrics of the project as Prometheus' own parser reads them."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by the name, without the prefix that all of them have, and the labels."""


def samples_of(text: str) -> Samples:
    return {
        (sample.name.removeprefix("dataprocessor_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    """Of the sample that has exactly these labels; None where there is none."""
    return found.get((name, frozenset(labels.items())))


def total(found: Samples, name: str, **labels: str) -> float:
    """The sum over the samples that have these labels, among others."""
    return sum(amount for (sample, has), amount in found.items() if sample == name and labels.items() <= has)
