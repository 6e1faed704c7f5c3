from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelyard import Client, errors
from modelyard.api.common.v1 import errors_pb2

from .fake import Fake, Refusal

CATALOGUE = Path(__file__).parents[3] / "protos/modelyard/api/common/v1/errors.proto"
REASONS = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118


def documented_codes() -> dict[str, str]:
    """Reason to gRPC code, as the comments of the catalogue say."""
    text = CATALOGUE.read_text()
    blocks = re.findall(r"((?:  //[^\n]*\n)+)  ERROR_REASON_(\w+) = \d+;", text)
    return {
        reason: re.search(r"// ([A-Z_]+)\.", comment)[1]
        for comment, reason in blocks
        if reason != "UNSPECIFIED"
    }


def test_every_reason_has_a_class() -> None:
    assert set(errors.BY_REASON) == REASONS


def test_the_class_of_a_reason_has_its_code() -> None:
    codes = documented_codes()
    assert set(codes) == REASONS
    assert {reason: errors.BY_REASON[reason].default_code for reason in REASONS} == codes


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    lines = re.findall(r"[├└]── (\w+(?:, \w+)*)", errors.__doc__ or "")
    drawn = {name for line in lines for name in line.split(", ")} | {"ModelyardError"}
    defined = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.ModelyardError)
    }
    assert drawn == defined


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_an_error_is_rebuilt_from_its_reason(fake: Fake, client: Client, reason: str) -> None:
    code = documented_codes()[reason]

    def refuse(_: object) -> None:
        raise Refusal(
            code, reason, "text that nobody parses", metadata={"name": "prod", "resource_type": "catalog"}
        )

    fake.answers["SetAliases"] = refuse  # a call that is never repeated by itself
    with pytest.raises(errors.ModelyardError) as caught:
        client.aliases.set("prod.ml.iris", {"champion": 1})
    error = caught.value
    assert type(error) is errors.BY_REASON[reason]
    assert (error.reason, error.code, error.name, error.resource_type) == (reason, code, "prod", "catalog")
    assert str(error) == "text that nobody parses"
    assert error.request_id == fake.metadata("SetAliases")[-1]["x-request-id"]


@pytest.mark.parametrize(
    ("code", "kind", "builtin"),
    [
        ("NOT_FOUND", errors.NotFound, LookupError),
        ("PERMISSION_DENIED", errors.PermissionDenied, PermissionError),
        ("INVALID_ARGUMENT", errors.InvalidArgument, ValueError),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceeded, TimeoutError),
        ("UNAVAILABLE", errors.Unavailable, ConnectionError),
        ("UNKNOWN", errors.InternalError, Exception),
        ("UNIMPLEMENTED", errors.Unimplemented, Exception),
    ],
)
def test_an_error_of_a_proxy_is_mapped_by_its_code(
    fake: Fake, client: Client, code: str, kind: type[Exception], builtin: type[Exception]
) -> None:
    def refuse(_: object) -> None:
        raise Refusal(code, message="RBAC: access denied")

    fake.answers["SetAliases"] = refuse
    with pytest.raises(builtin, match="RBAC: access denied") as caught:
        client.aliases.set("prod.ml.iris", {"champion": 1})
    assert type(caught.value) is kind


def test_a_reason_from_the_future_and_one_of_another_domain_are_mapped_by_code(
    fake: Fake, client: Client
) -> None:
    for refusal in (
        Refusal("NOT_FOUND", "NEW_REASON"),
        Refusal("NOT_FOUND", "TOKEN_EXPIRED", domain="other.example"),
    ):

        def refuse(_: object, refusal: Refusal = refusal) -> None:
            raise refusal

        fake.answers["GetModel"] = refuse
        with pytest.raises(errors.NotFound):
            client.models.get("prod.ml.iris")


def test_field_violations_and_unmet_conditions_arrive(fake: Fake, client: Client) -> None:
    def refuse_fields(_: object) -> None:
        raise Refusal(
            "INVALID_ARGUMENT", "INVALID_FIELD", violations={"model.name": "too long", "tags": "too many"}
        )

    def refuse_policy(_: object) -> None:
        raise Refusal("FAILED_PRECONDITION", "POLICY_UNMET", unmet=["1 approval is missing"])

    fake.answers.update(CreateModel=refuse_fields, SetAliases=refuse_policy)
    with pytest.raises(errors.InvalidArgument) as fields:
        client.models.create("prod.ml.iris")
    assert [(v.field, v.description) for v in fields.value.violations] == [
        ("model.name", "too long"),
        ("tags", "too many"),
    ]
    with pytest.raises(errors.PolicyUnmet) as policy:
        client.aliases.set("prod.ml.iris", {"champion": 1})
    assert policy.value.unmet == ("1 approval is missing",)
