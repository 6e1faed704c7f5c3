from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from modelyard import Client, CustomMetadata, Dataset, ModelMetadata, errors, infer_signature
from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from modelyard.api.governance.v1.governance_service_pb2 import GetPrincipalResponse
from modelyard.types import MetadataCategory, ResourceType

from .fake import Fake, Refusal

MODEL, VERSION = "prod.ml.iris", "prod.ml.iris/1"


def test_an_update_sends_only_what_was_given(fake: Fake, client: Client) -> None:
    client.catalogs.update("prod", description="", etag="e1")
    client.schemas.update("prod.ml", owner_id="p1")
    client.models.update(MODEL, description="d", owner_id="p1")
    catalog, schema, model = (fake.requests(f"Update{noun}")[0] for noun in ("Catalog", "Schema", "Model"))
    assert (catalog.name, catalog.catalog.etag, catalog.update_mask.paths) == ("prod", "e1", ["description"])
    assert (schema.schema.owner_id, schema.update_mask.paths) == ("p1", ["owner_id"])
    assert list(model.update_mask.paths) == ["description", "owner_id"]
    fake.answers["GetPrincipal"] = lambda request: GetPrincipalResponse(
        principal={"id": f"id-of-{request.name}"}
    )
    client.catalogs.update("prod", owner="ada")
    by_name = fake.requests("UpdateCatalog")[-1]
    assert (by_name.catalog.owner_id, by_name.update_mask.paths) == ("id-of-ada", ["owner_id"])
    with pytest.raises(errors.InvalidArgument, match="either owner or owner_id"):
        client.catalogs.update("prod", owner="ada", owner_id="p1")
    assert (model.model.name, model.model.description) == ("", "d")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.catalogs.update("prod"),
        lambda c: c.schemas.update("prod.ml", etag="e"),
        lambda c: c.models.update(MODEL),
        lambda c: c.versions.update(VERSION, etag="e"),
    ],
)
def test_an_update_of_nothing_is_refused_here(
    fake: Fake, client: Client, change: Callable[[Client], Any]
) -> None:
    with pytest.raises(errors.InvalidArgument, match="nothing to change: give at least one of description"):
        change(client)
    assert not fake.calls


@pytest.mark.parametrize(
    ("change", "rpc", "field", "before", "after"),
    [
        (lambda c: c.catalogs.rename("prod", "live"), "UpdateCatalog", "catalog", "prod", "live"),
        (lambda c: c.schemas.rename("prod.ml", "ai"), "UpdateSchema", "schema", "prod.ml", "prod.ai"),
        (lambda c: c.schemas.rename("prod.ml", "prod.ai"), "UpdateSchema", "schema", "prod.ml", "prod.ai"),
        (lambda c: c.models.rename(MODEL, "lily"), "UpdateModel", "model", MODEL, "prod.ml.lily"),
        (lambda c: c.models.rename(MODEL, "prod.ml.lily"), "UpdateModel", "model", MODEL, "prod.ml.lily"),
        (lambda c: c.models.move(MODEL, "live.ai"), "UpdateModel", "model", MODEL, "live.ai.iris"),
        (lambda c: c.models.move(MODEL, "live.ai.lily"), "UpdateModel", "model", MODEL, "live.ai.lily"),
    ],
)
def test_a_rename_takes_the_last_part_or_the_full_name(
    fake: Fake,
    client: Client,
    change: Callable[[Client], Any],
    rpc: str,
    field: str,
    before: str,
    after: str,
) -> None:
    change(client)
    (sent,) = fake.requests(rpc)
    assert (sent.name, getattr(sent, field).name, sent.update_mask.paths) == (before, after, ["name"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.catalogs.rename("prod", "a.b"), "new_name: 'a.b' has 2 parts"),
        (lambda c: c.schemas.rename("prod.ml", "live.ml"), "a schema stays in its catalog"),
        (lambda c: c.models.rename(MODEL, "live.ml.iris"), "move it with models.move"),
        (lambda c: c.models.rename(MODEL, "a b"), "new_name: 'a b'"),
        (lambda c: c.models.move(MODEL, "live"), "to: 'live.iris' has 2 parts"),
        (lambda c: c.models.undelete(""), "id: give the id"),
    ],
)
def test_names_that_cannot_be_are_refused_here(
    fake: Fake, client: Client, change: Callable[[Client], Any], problem: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=problem):
        change(client)
    assert not fake.calls


def test_what_is_deleted_tells_until_when_it_can_be_undeleted(fake: Fake, client: Client) -> None:
    answer = pb.DeleteModelResponse(model={"id": "m1", "name": MODEL})
    answer.model.delete_time.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
    answer.model.purge_time.FromDatetime(datetime(2026, 1, 31, tzinfo=UTC))
    fake.answers["DeleteModel"] = lambda _: answer
    deleted = client.models.delete(MODEL, force=True, etag="e1")
    assert (deleted.id, deleted.purge_time) == ("m1", datetime(2026, 1, 31, tzinfo=UTC))
    sent = fake.requests("DeleteModel")[0]
    assert (sent.name, sent.force, sent.etag) == (MODEL, True, "e1")

    back = {"id": "m1", "name": MODEL, "type": "RESOURCE_TYPE_MODEL"}
    fake.answers["UndeleteResource"] = lambda _: pb.UndeleteResourceResponse(resource=back)
    resource = client.models.undelete("m1")
    assert (resource.type, resource.name) == (ResourceType.MODEL, MODEL)
    for noun in (client.catalogs, client.schemas, client.versions):
        noun.undelete("x")
    assert [request.type for request in fake.requests("UndeleteResource")] == [4, 2, 3, 5]


def test_what_is_in_use_says_by_what_and_a_change_is_never_repeated(fake: Fake, client: Client) -> None:
    def in_use(_: object) -> None:
        metadata = {"resource_type": "model_version", "name": VERSION}
        raise Refusal("FAILED_PRECONDITION", "RESOURCE_IN_USE", metadata=metadata, unmet=["alias champion"])

    def down(_: object) -> None:
        raise Refusal("UNAVAILABLE")

    fake.answers.update(DeleteModelVersion=in_use, UpdateModel=down)
    with pytest.raises(errors.ResourceInUse) as caught:
        client.versions.delete(VERSION)
    assert (caught.value.unmet, caught.value.name) == (("alias champion",), VERSION)
    with pytest.raises(errors.Unavailable):
        client.models.rename(MODEL, "lily")
    assert len(fake.requests("UpdateModel")) == 1


def test_lists_filter_order_and_show_what_is_deleted(fake: Fake, client: Client) -> None:
    lists = {
        "ListCatalogs": client.catalogs.list(filter="a", order_by="b", show_deleted=True),
        "ListSchemas": client.schemas.list("prod", filter="a", order_by="b", show_deleted=True),
        "ListModels": client.models.list("prod.ml", filter="a", order_by="b", show_deleted=True),
        "ListModelVersions": client.versions.list(MODEL, filter="a", order_by="b", show_deleted=True),
    }
    for rpc, pager in lists.items():
        pages = iter(["next", ""])
        fake.answers[rpc] = lambda _, rpc=rpc, pages=pages: getattr(pb, f"{rpc}Response")(
            next_page_token=next(pages)
        )
        assert pager.collect() == []
        first, second = fake.requests(rpc)
        for request in (first, second):
            assert (request.filter, request.order_by, request.show_deleted) == ("a", "b", True)
        assert (first.page_token, second.page_token) == ("", "next")


def test_a_version_is_made_with_label_and_metadata(fake: Fake, client: Client) -> None:
    metadata = ModelMetadata(
        use_case="regression",
        hyperparameters={"depth": 3, "deep": {"a": [1, None]}},
        custom=(CustomMetadata("team", "ml", MetadataCategory.OTHER, "who"), CustomMetadata("b", "c")),
    )
    client.versions.create(MODEL, "sha256:00", label="1.4.0", metadata=metadata)
    sent = fake.requests("CreateModelVersion")[0]
    assert (sent.label, sent.metadata.use_case) == ("1.4.0", "regression")
    assert sent.metadata.hyperparameters["depth"] == 3
    assert sent.metadata.hyperparameters["deep"]["a"][0] == 1
    assert [(f.key, f.category) for f in sent.metadata.custom] == [("team", 5), ("b", 0)]

    answer = pb.GetModelVersionResponse(model_version={"name": VERSION, "metadata": sent.metadata})
    fake.answers["GetModelVersion"] = lambda _: answer
    found = client.versions.get(VERSION).metadata
    assert found == metadata
    assert isinstance(found.hyperparameters["depth"], int)


def test_metadata_that_json_cannot_hold_is_named(fake: Fake, client: Client) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"hyperparameters\['loss'\]: nan cannot be stored"):
        client.versions.update(VERSION, metadata=ModelMetadata(hyperparameters={"loss": float("nan")}))
    fact = CustomMetadata("a", "b", "nonsense")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument, match="category: 'nonsense' is none of PERFORMANCE"):
        client.versions.update(VERSION, metadata=ModelMetadata(custom=(fact,)))
    assert not fake.calls


def test_a_version_is_updated_field_by_field(fake: Fake, client: Client) -> None:
    client.versions.update(f"models:/{VERSION}", label="", etag="e1")
    client.versions.update(VERSION, metadata=ModelMetadata(), description="d")
    client.versions.update(VERSION, datasets=[Dataset("iris", "1", role="training")])
    client.versions.update(VERSION, datasets=[], signature=infer_signature([[1.0]], [1.0]))
    label, cleared, datasets, none = fake.requests("UpdateModelVersion")
    assert (label.name, label.update_mask.paths, label.model_version.etag) == (VERSION, ["label"], "e1")
    assert list(cleared.update_mask.paths) == ["description", "metadata"]
    assert list(datasets.update_mask.paths) == ["provenance.datasets"]
    (dataset,) = datasets.model_version.provenance.datasets
    assert (dataset.name, dataset.version, dataset.role) == ("iris", "1", "training")
    assert list(none.update_mask.paths) == ["provenance.datasets", "signature"]
    assert none.model_version.signature.methods[0].name == "predict"


def test_a_copy_can_be_repeated(fake: Fake, client: Client) -> None:
    left = [1]

    def copy(request: Any) -> Any:
        if left:
            left.pop()
            raise Refusal("UNAVAILABLE")
        return pb.CopyModelVersionResponse(
            model_version={"name": "live.ml.iris/1", "copied_from": request.source, "copied_from_id": "v1"}
        )

    fake.answers["CopyModelVersion"] = copy
    version = client.versions.copy("prod.ml.iris@champion", "live.ml.iris", label="1.0")
    assert (version.copied_from, version.copied_from_id) == ("prod.ml.iris@champion", "v1")
    first, second = fake.requests("CopyModelVersion")
    assert first.request_id == second.request_id != ""
    assert (first.model, first.label) == ("live.ml.iris", "1.0")


def test_aliases_tell_their_past(fake: Fake, client: Client) -> None:
    when = datetime(2026, 1, 2, 3, tzinfo=UTC)
    move = {"alias": "champion", "previous_version": 1, "version": 2, "moved_by": "ada", "move_time": when}
    fake.answers["ListAliasHistory"] = lambda _: pb.ListAliasHistoryResponse(moves=[move])
    (found,) = client.aliases.history(MODEL, "champion")
    assert (found.alias, found.previous_version, found.version) == ("champion", 1, 2)
    assert (found.moved_by, found.move_time) == ("ada", when)
    assert fake.requests("ListAliasHistory")[0].alias == "champion"

    fake.answers["GetAliasAt"] = lambda _: pb.GetAliasAtResponse(version=7)
    assert client.aliases.at(MODEL, "champion", when) == 7
    assert fake.requests("GetAliasAt")[0].time.ToDatetime(tzinfo=UTC) == when
    with pytest.raises(errors.InvalidArgument, match="has no time zone"):
        client.aliases.at(MODEL, "champion", when.replace(tzinfo=None))


def test_a_rollback_is_conditional_if_wanted(fake: Fake, client: Client) -> None:
    fake.answers["RollbackAlias"] = lambda _: pb.RollbackAliasResponse(model={"aliases": {"champion": 1}})
    assert client.aliases.rollback(MODEL, "champion").aliases == {"champion": 1}
    client.aliases.rollback(MODEL, "champion", expected=2)
    plain, conditional = fake.requests("RollbackAlias")
    assert not plain.HasField("expected_version")
    assert conditional.expected_version == 2


def test_limits_are_listed(fake: Fake, client: Client) -> None:
    limit = {"name": "tags_per_resource", "maximum": 100, "unit": "tags", "description": "Tags."}
    fake.answers["GetLimits"] = lambda _: pb.GetLimitsResponse(limits=[limit])
    (found,) = client.limits()
    assert (found.name, found.maximum, found.unit) == ("tags_per_resource", 100, "tags")
