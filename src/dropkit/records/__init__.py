"""The frozen values that cross borders between rooms. No torch, no pandas, no behaviour."""

from dropkit.records.findings import Edit, Finding, Need, Repair, Report, Severity, SourceEdit
from dropkit.records.shards import Shard
from dropkit.records.sites import Kind as SiteKind
from dropkit.records.sites import Measured, Neighbour, Place, Role, Site
from dropkit.records.tables import (
    REGULARIZERS,
    Baseline,
    Check,
    Cocktail,
    Column,
    Curve,
    Effect,
    Fit,
    Holdout,
    Kind,
    Origin,
    Outcome,
    Progress,
    Schema,
    Task,
    Trial,
)

__all__ = [
    "REGULARIZERS",
    "Baseline",
    "Check",
    "Cocktail",
    "Column",
    "Curve",
    "Edit",
    "Effect",
    "Finding",
    "Fit",
    "Holdout",
    "Kind",
    "Measured",
    "Need",
    "Neighbour",
    "Origin",
    "Outcome",
    "Place",
    "Progress",
    "Repair",
    "Report",
    "Role",
    "Schema",
    "Severity",
    "Shard",
    "Site",
    "SiteKind",
    "SourceEdit",
    "Task",
    "Trial",
]
