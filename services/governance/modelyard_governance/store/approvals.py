"""Rows of policies and reviews."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from sqlalchemy import RowMapping, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.fields import POLICIES
from modelyard_governance.models import Condition, Policy, Review, Verdict
from modelyard_governance.tables import policies, principals, reviews
from modelyard_kit.access import Link, ResourceType
from modelyard_kit.filters import Asked, fetch

_policies = select(policies, func.coalesce(principals.c.name, "").label("approver_group")).select_from(
    policies.outerjoin(principals, principals.c.id == policies.c.approver_group_id)
)


async def put_policy(connection: AsyncConnection, policy: Policy) -> Policy:
    """Insert a policy or replace the one on the same resource, whose id stays; return it as stored."""
    content = {
        "resource_name": policy.resource.name,
        "required_approvals": policy.required_approvals,
        "allow_self_approval": policy.allow_self_approval,
        "protected_aliases": list(policy.protected_aliases),
        "protect_deployments": policy.protect_deployments,
        "update_time": policy.update_time,
        "approver_group_id": policy.approver_group_id,
        "approval_lifetime": policy.approval_lifetime,
        "conditions": [asdict(condition) for condition in policy.conditions],
    }
    statement = (
        insert(policies)
        .values(id=policy.id, resource_type=policy.resource.type, resource_id=policy.resource.id, **content)
        .on_conflict_do_update(index_elements=[policies.c.resource_id], set_=content)
    )
    await connection.execute(statement)
    return (await policies_on(connection, [policy.resource.id]))[policy.resource.id]


async def policies_on(connection: AsyncConnection, resource_ids: Iterable[str]) -> dict[str, Policy]:
    """Return the policies on these resources, by the id of the resource."""
    query = _policies.where(policies.c.resource_id.in_(list(resource_ids)))
    found = (await connection.execute(query)).mappings()
    return {row["resource_id"]: _policy(row) for row in found}


async def page_of_policies(connection: AsyncConnection, asked: Asked) -> tuple[list[Policy], str]:
    """Return a page of policies and the token of the next."""
    rows, token = await fetch(connection, _policies, asked, POLICIES)
    return [_policy(row) for row in rows], token


async def policed_by_groups(connection: AsyncConnection) -> list[str]:
    """Return the ids of the resources whose policies have a group of approvers."""
    query = select(policies.c.resource_id).where(policies.c.approver_group_id.is_not(None))
    return list((await connection.execute(query)).scalars())


async def put_review(connection: AsyncConnection, version_id: str, review: Review) -> None:
    """Insert a review or replace the one of the same reviewer."""
    content = {
        "reviewer_name": review.reviewer,
        "verdict": review.verdict,
        "comment": review.comment,
        "create_time": review.create_time,
    }
    statement = insert(reviews).values(version_id=version_id, reviewer_id=review.reviewer_id, **content)
    key = [reviews.c.version_id, reviews.c.reviewer_id]
    await connection.execute(statement.on_conflict_do_update(index_elements=key, set_=content))


async def reviews_of(connection: AsyncConnection, version_id: str) -> list[Review]:
    """Return what was said of a version, in order."""
    return (await reviews_of_all(connection, [version_id])).get(version_id, [])


async def reviews_of_all(
    connection: AsyncConnection, version_ids: Sequence[str]
) -> Mapping[str, list[Review]]:
    """Return what was said of each of some versions, in order."""
    query = (
        select(reviews)
        .where(reviews.c.version_id.in_(version_ids))
        .order_by(reviews.c.create_time, reviews.c.reviewer_id)
    )
    found: dict[str, list[Review]] = defaultdict(list)
    for row in await connection.execute(query):
        verdict = Verdict(row.verdict)
        review = Review(row.reviewer_id, row.reviewer_name, verdict, row.comment, row.create_time)
        found[row.version_id].append(review)
    return found


def _policy(row: RowMapping) -> Policy:
    return Policy(
        id=row["id"],
        resource=Link(ResourceType(row["resource_type"]), row["resource_id"], row["resource_name"]),
        required_approvals=row["required_approvals"],
        allow_self_approval=row["allow_self_approval"],
        protected_aliases=tuple(row["protected_aliases"]),
        protect_deployments=row["protect_deployments"],
        update_time=row["update_time"],
        approver_group_id=row["approver_group_id"],
        approver_group=row["approver_group"],
        approval_lifetime=row["approval_lifetime"],
        conditions=tuple(Condition(**condition) for condition in row["conditions"]),
    )
