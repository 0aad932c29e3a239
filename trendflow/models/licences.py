"""The licence inventory, generated from the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from trendflow.models.catalogue import Catalogue

_INTRODUCTION = """# Model licences

Generated from `models/catalogue.yaml`. `commercial_use` is the project's reading of each licence: *allowed*,
*restricted* (copyleft or a paid alternative) or *forbidden*. Where `TRENDFLOW_PRODUCTION` is
set, a profile that maps a forbidden entry is refused.
"""


@dataclass(frozen=True)
class LicenceRow:
    """One entry as the inventory shows it."""

    entry: str
    version: str
    roles: tuple[str, ...]
    licence_spdx: str
    licence_url: str
    commercial_use: str
    attribution: str
    source: str
    weights_digest: str


def licence_rows(catalogue: Catalogue) -> list[LicenceRow]:
    """All entries, by name."""
    return [
        LicenceRow(
            entry=entry.name,
            version=entry.version,
            roles=entry.roles,
            licence_spdx=entry.licence_spdx,
            licence_url=entry.licence_url,
            commercial_use=entry.commercial_use,
            attribution=entry.attribution,
            source=f"{entry.source.locator} {entry.source.revision}",
            weights_digest=entry.weights_digest,
        )
        for entry in sorted(catalogue, key=lambda entry: entry.name)
    ]


def render_licences(catalogue: Catalogue) -> str:
    """The inventory as Markdown."""
    lines = [
        _INTRODUCTION,
        "| model | version | roles | licence | commercial use | attribution | source | weights digest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in licence_rows(catalogue):
        cells = [
            row.entry,
            row.version,
            ", ".join(row.roles),
            f"[{row.licence_spdx}]({row.licence_url})",
            row.commercial_use,
            row.attribution,
            row.source,
            f"`{row.weights_digest[:16]}`",
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
