"""artifacts validate, prepare, inspection, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard import oci
from modelyard.cli._input import read_example
from modelyard.cli._output import TABLE, Format, Output, plain, show_json, show_one, show_rows
from modelyard.cli._session import connect
from modelyard.references import parse_version_reference

if TYPE_CHECKING:
    from modelyard.client import Client
    from modelyard.types import Inspection

_TESTS = ("id", "result", "message", "value")
_FINDINGS = ("severity", "path", "subject", "description")

_Target = Annotated[
    str, typer.Argument(metavar="[VERSION]", help="Version reference: prod.ml.iris/3, prod.ml.iris@champion.")
]
_Digest = Annotated[
    str, typer.Option("--digest", help="Digest of an artifact, instead of a version; needs --model.")
]
_Model = Annotated[
    str, typer.Option("--model", help="Full name of the model that the digest was committed for.")
]


def validate(
    path: Annotated[Path, typer.Argument(help="Folder or zip of an OCI model artifact.")],
    json: Annotated[bool, typer.Option("--json", help="Print what OCI's own validator writes.")] = False,
    output: Output = TABLE,
) -> None:
    """Run OCI's introspection tests on an artifact, offline; the service runs the same. Ends with 1 if one fails."""
    report = oci.validate(path)
    if json:
        typer.echo(report.to_json())
    else:
        show_rows(report.tests, _TESTS, output)
        if output is Format.TABLE:
            typer.echo(_summary(len(report.failures)), err=True)
    if not report.passed:
        raise typer.Exit(1)


def prepare(
    model: Annotated[Path, typer.Argument(help="Saved model: one file, .skops or .onnx.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    environment_path: Annotated[
        str, typer.Option("--environment-path", help="Conda environment in OCI: oci://bucket@namespace/path.")
    ],
    environment_slug: Annotated[
        str, typer.Option("--environment-slug", help="Name of that environment.")
    ] = "",
    environment_type: Annotated[
        str, typer.Option("--environment-type", help="published or data_science.")
    ] = "published",
    python_version: Annotated[
        str, typer.Option("--python-version", help="Python of that environment; by default the one here.")
    ] = "",
    example: Annotated[
        str, typer.Option("--example", metavar="FILE", help="Rows (JSON or CSV) to tell the schemas from.")
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")
    ] = False,
) -> None:
    """Write a correct OCI model artifact from a saved model."""
    made = oci.prepare(
        model,
        folder,
        example=read_example(example, "--example"),
        environment_path=environment_path,
        environment_slug=environment_slug,
        environment_type=environment_type,
        python_version=python_version,
        overwrite=overwrite,
    )
    typer.echo(made)


def inspection(
    reference: _Target = "",
    digest: _Digest = "",
    model: _Model = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the tests as OCI's own validator writes them.")
    ] = False,
    output: Output = TABLE,
) -> None:
    """Show what the service found out about an artifact: tests, harmful content, formats."""
    with connect() as client:
        wanted = _artifact(client, reference, digest, model)
        found = client.inspections.wait(**wanted) if wait else client.inspections.get(**wanted)
    if json:
        typer.echo(found.tests_json)
    else:
        _show(found, output)


def inspect(
    reference: _Target = "",
    digest: _Digest = "",
    model: _Model = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for its end.")] = True,
    output: Output = TABLE,
) -> None:
    """Have an artifact inspected again, with the scanner of today."""
    with connect() as client:
        wanted = _artifact(client, reference, digest, model)
        found = client.inspections.start(**wanted)
        _show(client.inspections.wait(**wanted) if wait else found, output)


def _artifact(client: Client, reference: str, digest: str, model: str) -> dict[str, Any]:
    """Digest and model of what is meant."""
    if bool(reference) == bool(digest):
        raise typer.BadParameter(
            "name a version, or an artifact by --digest and --model", param_hint="VERSION"
        )
    if reference:
        version = client.versions.get(reference)
        return {"digest": version.artifact_digest, "model": parse_version_reference(version.name).model}
    if not model:
        raise typer.BadParameter("--digest needs --model", param_hint="--model")
    return {"digest": digest, "model": model}


def _show(found: Inspection, output: Format) -> None:
    if output is Format.JSON:
        show_json(plain(found))
        return
    show_one(
        {
            "artifact": found.artifact_digest,
            "state": found.state or "",
            "message": found.message,
            "scan": found.scan or "",
            "scanner": found.scanner,
            "may run code": ", ".join(
                f"{one.path} ({one.format})" for one in found.formats if one.may_run_code
            ),
            "tests": ("passed" if found.tests_passed else "failed") if found.oci else "no OCI artifact",
            "end time": found.end_time,
        },
        output,
    )
    if found.tests:
        typer.echo()
        show_rows(found.tests, _TESTS, output)
    if found.findings:
        typer.echo()
        show_rows(found.findings, _FINDINGS, output)


def _summary(failed: int) -> str:
    return (
        "Validation passed."
        if not failed
        else f"Validation failed: {failed} test{'s' if failed > 1 else ''}."
    )


def add_to(artifacts: typer.Typer) -> None:
    """Add the verbs to the noun `artifacts`."""
    for verb in (validate, prepare, inspection, inspect):
        artifacts.command()(verb)
