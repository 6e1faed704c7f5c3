"""Errors that only governance raises."""

from __future__ import annotations

from modelyard_kit.errors import DomainError


class GroupCycle(DomainError):
    """The group would be in itself."""

    reason = "GROUP_CYCLE"
    code = "FAILED_PRECONDITION"

    def __init__(self, group: str, member: str) -> None:
        super().__init__(
            f"{member!r} cannot be in {group!r}: {group!r} is in {member!r}, itself or through other groups",
            metadata={"group": group, "member": member},
        )


class SelfApproval(DomainError):
    """The policy wants a reviewer other than the author."""

    reason = "SELF_APPROVAL"
    code = "FAILED_PRECONDITION"

    def __init__(self, name: str, author: str, policy: str) -> None:
        super().__init__(
            f"{author} created {name!r}, and the policy on {policy!r} wants an approval by somebody else",
            metadata={"name": name, "author": author},
        )
