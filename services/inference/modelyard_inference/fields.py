"""What each list of the inference service can be filtered and ordered by; docs/filters.md has a table of it, made from here."""

from __future__ import annotations

import sqlalchemy as sa

from modelyard_inference.evidence import SignatureState
from modelyard_inference.models import Change, DeploymentState, ReplicaState
from modelyard_inference.tables import deployments, groups, replicas, revisions, targets
from modelyard_kit.filters import Field, FieldType, ListFields, SetField


def _text(column: sa.ColumnElement[str]) -> Field:
    return Field(FieldType.TEXT, column, required=True)


def _integer(column: sa.ColumnElement[int]) -> Field:
    return Field(FieldType.INTEGER, column, required=True)


def _time(column: sa.ColumnElement[object]) -> Field:
    return Field(FieldType.TIMESTAMP, column, required=True)


def _nothing(column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """Return a column that is empty text as long as there is no value."""
    return sa.func.nullif(column, "")


def _of_targets(column: sa.Column[str]) -> SetField:
    """Return a set that has one element for each target that has one."""
    elements: sa.Select[tuple[str]] = sa.select(column.label("element"))
    return SetField(elements.where(targets.c.deployment_id == deployments.c.id, column != ""))


DEPLOYMENTS = ListFields(
    {
        "id": _text(deployments.c.id),
        "name": _text(deployments.c.name),
        "description": _text(deployments.c.description),
        "state": Field(FieldType.ENUM, deployments.c.state, tuple(DeploymentState), required=True),
        "state_message": _text(deployments.c.state_message),
        "replicas": _integer(deployments.c.replicas),
        "max_request_bytes": _integer(deployments.c.max_request_bytes),
        # In seconds, as people write it.
        "timeout": Field(FieldType.REAL, sa.cast(deployments.c.timeout_ms, sa.Double) / 1000, required=True),
        "require_signature": Field(FieldType.BOOLEAN, deployments.c.require_signature, required=True),
        "revision": _integer(deployments.c.revision),
        "owner_id": _text(deployments.c.owner_id),
        "owner": Field(FieldType.PRINCIPAL, deployments.c.owner_id, required=True),
        "target": _of_targets(targets.c.reference),
        "model": _of_targets(targets.c.model),
        "model_version": _of_targets(targets.c.serving),
        "create_time": _time(deployments.c.create_time),
        "update_time": _time(deployments.c.update_time),
    },
    unique="id",
)

REPLICAS = ListFields(
    {
        "id": _text(replicas.c.id),
        "model_version": _text(groups.c.version["name"].astext),
        "state": Field(FieldType.ENUM, replicas.c.state, tuple(ReplicaState), required=True),
        "state_message": _text(replicas.c.message),
        "signature_state": Field(FieldType.ENUM, _nothing(replicas.c.signature_state), tuple(SignatureState)),
        "signer": _text(replicas.c.signer),
        "trust_root": _text(replicas.c.trust_root),
        "address": _text(replicas.c.address),
        "process_id": _integer(replicas.c.process_id),
        "restarts": _integer(replicas.c.restarts),
        "failures": _integer(replicas.c.failures),
        "next_start_time": Field(FieldType.TIMESTAMP, replicas.c.not_before),
        "create_time": _time(replicas.c.create_time),
    },
    unique="id",
)

REVISIONS = ListFields(
    {
        "revision": _integer(revisions.c.number),
        "change": Field(FieldType.ENUM, revisions.c.change, tuple(Change), required=True),
        "actor_id": _text(revisions.c.actor_id),
        "actor": Field(FieldType.PRINCIPAL, revisions.c.actor_id, required=True),
        "actor_name": _text(revisions.c.actor_name),
        "reason": _text(revisions.c.reason),
        "rolled_back_to": _integer(revisions.c.rolled_back_to),
        "create_time": _time(revisions.c.create_time),
    },
    unique="revision",
    default_order="revision desc",
)

LISTS = {
    "ListDeployments": DEPLOYMENTS,
    "ListReplicas": REPLICAS,
    "ListDeploymentRevisions": REVISIONS,
}
"""Fields of each list, by its RPC."""
