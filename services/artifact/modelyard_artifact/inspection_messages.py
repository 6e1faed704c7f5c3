"""Between messages and commands of inspections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.api.artifact.v1 import artifact_pb2
from modelyard_kit.protos import timestamp

if TYPE_CHECKING:
    from modelyard_artifact.inspection_models import Inspection


def inspection_to_proto(inspection: Inspection) -> artifact_pb2.Inspection:
    """Render an inspection."""
    pb = artifact_pb2.Inspection
    message = pb(
        artifact_digest=inspection.digest,
        state=pb.State.Value(f"STATE_{inspection.state}"),
        message=inspection.message,
        end_time=timestamp(inspection.end_time) if inspection.end_time else None,
    )
    found = inspection.found
    if found is None:
        return message
    message.oci = found.oci
    message.tests_json = found.tests_json
    message.scan = pb.Scan.Value(f"SCAN_{found.scan}")
    message.scanner = found.scanner
    message.tests.extend(
        artifact_pb2.IntrospectionTest(
            id=test.id,
            category=test.category,
            description=test.description,
            result=artifact_pb2.IntrospectionTest.Result.Value(f"RESULT_{test.result}"),
            message=test.message,
            value=test.value,
        )
        for test in found.tests
    )
    message.findings.extend(
        artifact_pb2.Finding(
            path=finding.path,
            severity=artifact_pb2.Finding.Severity.Value(f"SEVERITY_{finding.severity}"),
            subject=finding.subject,
            description=finding.description,
        )
        for finding in found.findings
    )
    message.formats.extend(
        artifact_pb2.FileFormat(path=file.path, format=file.format, may_run_code=file.may_run_code)
        for file in found.formats
    )
    return message
