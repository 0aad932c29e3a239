"""The servers that every fleet has."""

from __future__ import annotations

from trendflow.fleet.postgresql import POSTGRESQL
from trendflow.fleet.seaweedfs import SEAWEEDFS
from trendflow.fleet.service import Blueprint
from trendflow.fleet.valkey import VALKEY

INFRASTRUCTURE: tuple[Blueprint, ...] = (SEAWEEDFS, VALKEY, POSTGRESQL)

SERVERS: tuple[str, ...] = tuple(blueprint.name for blueprint in INFRASTRUCTURE)
"""What TrendFlow's own programs need."""
