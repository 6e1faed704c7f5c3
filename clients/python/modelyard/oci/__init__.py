"""OCI model artifacts: OCI's introspection tests without a network or an OCI account, and correct artifacts from models.

`validate` runs exactly what the artifact service runs on commit. Everything but `prepare` needs only PyYAML
(`pip install 'modelyard[oci]'`).
"""

from __future__ import annotations

from modelyard.oci.artifact import opened, validate
from modelyard.oci.prepare import prepare
from modelyard.oci.report import Report, Result, TestResult
from modelyard.oci.tests import is_oci, run
from modelyard.oci.tree import FolderTree, MemoryTree, Tree

__all__ = [
    "FolderTree",
    "MemoryTree",
    "Report",
    "Result",
    "TestResult",
    "Tree",
    "is_oci",
    "opened",
    "prepare",
    "run",
    "validate",
]
