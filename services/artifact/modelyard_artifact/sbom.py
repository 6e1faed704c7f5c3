"""The bill of materials of a version: CycloneDX 1.6 with the model card of its ML-BOM (cyclonedx.org/capabilities/mlbom).

The library writes the document; the model card, which its object model lacks, is added to the component of the model by the same
schema. The same version gives the same document until its metadata changes: nothing in it is random or of now.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from modelyard_artifact.described import Described
    from modelyard_artifact.models import FileEntry

_NAMESPACE = uuid.UUID("6f1f5a46-3f0e-5d5c-9d7c-8a4c1f6f9b1e")
_TASKS = {
    "binary_classification": "classification",
    "multinomial_classification": "classification",
}


def document(version: Described, files: Sequence[FileEntry], requirements: Iterable[str]) -> str:
    """Return the document as JSON.

    Args:
        version: what the catalog knows.
        files: the manifest.
        requirements: lines of the artifact's `requirements.txt`.
    """
    model = _model(version)
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, f"{version.id} {version.digest}"))
    bom.metadata.timestamp = version.create_time
    bom.metadata.component = model
    parts = [*_files(files), *_packages(version, requirements), *_datasets(version)]
    bom.components.update(parts)
    bom.register_dependency(model, parts)
    written = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    content = json.loads(written)
    content["metadata"]["component"]["modelCard"] = _card(version)
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)


def _model(version: Described) -> Component:
    component = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"model:{version.id}",
        name=version.name.partition("/")[0],
        version=version.label or str(version.number),
        description=version.description or None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=version.digest.removeprefix("sha256:"))],
        properties=[
            Property(name=f"modelyard:{name}", value=value)
            for name, value in sorted(_facts(version).items())
            if value
        ],
    )
    if version.git_repository:
        comment = f"commit {version.git_commit}" if version.git_commit else None
        kind = ExternalReferenceType.VCS
        reference = ExternalReference(type=kind, url=XsUri(version.git_repository), comment=comment)
        component.external_references.add(reference)
    return component


def _facts(version: Described) -> dict[str, str]:
    tags = {f"tag:{key}": value for key, value in version.tags.items()}
    return tags | {
        "artifact_digest": version.digest,
        "author": version.author,
        "framework": version.framework,
        "framework_version": version.framework_version,
        "hyperparameters": version.hyperparameters,
        "python_version": version.python_version,
        "version_number": str(version.number),
    }


def _files(files: Sequence[FileEntry]) -> list[Component]:
    return [
        Component(
            type=ComponentType.FILE,
            bom_ref=f"file:{file.path}",
            name=file.path,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
            properties=[Property(name="modelyard:size_bytes", value=str(file.size))],
        )
        for file in files
    ]


def _packages(version: Described, requirements: Iterable[str]) -> list[Component]:
    """The packages of the provenance, and what the artifact itself requires beside them."""
    pinned: dict[str, str] = {canonicalize_name(name): exact for name, exact in version.packages.items()}
    for line in requirements:
        name, exact = _required(line)
        if name and not pinned.get(name):
            pinned[name] = exact
    return [
        Component(
            type=ComponentType.LIBRARY,
            bom_ref=f"package:{name}",
            name=name,
            version=exact or None,
            purl=PackageURL(type="pypi", name=name, version=exact or None),
        )
        for name, exact in sorted(pinned.items())
    ]


def _required(line: str) -> tuple[str, str]:
    """Name and exact version, if it has one, of a line of requirements; empty for options and comments."""
    text = line.partition(" #")[0].partition(" --hash")[0].strip().rstrip("\\").strip()
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return "", ""
    exact = [each.version for each in requirement.specifier if each.operator == "=="]
    return canonicalize_name(requirement.name), exact[0] if len(exact) == 1 and "*" not in exact[0] else ""


def _datasets(version: Described) -> list[Component]:
    found = {}
    for dataset in version.datasets:
        reference = f"data:{dataset.name}@{dataset.version or dataset.digest}"
        facts = {"digest": dataset.digest, "role": dataset.role}
        found[reference] = Component(
            type=ComponentType.DATA,
            bom_ref=reference,
            name=dataset.name,
            version=dataset.version or None,
            properties=[
                Property(name=f"modelyard:{key}", value=value) for key, value in facts.items() if value
            ],
        )
    return list(found.values())


def _card(version: Described) -> dict[str, Any]:
    parameters = {
        "task": _TASKS.get(version.use_case, version.use_case),
        "architectureFamily": version.framework,
        "modelArchitecture": version.algorithm,
    }
    trained = [each for each in version.datasets if each.role in ("", "training")]
    datasets = [{"ref": f"data:{each.name}@{each.version or each.digest}"} for each in trained]
    metrics = [{"type": name, "value": value} for name, value in sorted(version.metrics.items())]
    known: dict[str, Any] = {key: value for key, value in parameters.items() if value}
    if datasets:
        known["datasets"] = datasets
    card: dict[str, Any] = {"modelParameters": known}
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return card
