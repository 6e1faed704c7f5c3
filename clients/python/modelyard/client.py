"""The client for programs without `async`: the verbs of `AsyncClient`, each waiting for its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from modelyard import (
    _artifacts,
    _catalog,
    _deployments,
    _endpoints,
    _events,
    _inspections,
    _labels,
    _lineage,
    _signatures,
    _storage,
    _trust,
    _versions,
    contexts,
)
from modelyard._blocking_governance import (
    Approvals,
    Audit,
    Bundles,
    Cards,
    Grants,
    Groups,
    Issuers,
    Policies,
    Principals,
    Shares,
    Tokens,
    Webhooks,
)
from modelyard._channel import DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_TARGET
from modelyard._client import AsyncClient
from modelyard._sync import Blocking, EventWatch, Pager, blocking, opening, paging, streaming, watching

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType


class Catalogs(Blocking[_catalog.AsyncCatalogs]):
    """`client.catalogs`: the outermost namespaces."""

    create = blocking(_catalog.AsyncCatalogs.create)
    get = blocking(_catalog.AsyncCatalogs.get)
    list = paging(_catalog.AsyncCatalogs.list)
    update = blocking(_catalog.AsyncCatalogs.update)
    rename = blocking(_catalog.AsyncCatalogs.rename)
    delete = blocking(_catalog.AsyncCatalogs.delete)
    undelete = blocking(_catalog.AsyncCatalogs.undelete)


class Schemas(Blocking[_catalog.AsyncSchemas]):
    """`client.schemas`: namespaces inside a catalog, `prod.ml_team`."""

    create = blocking(_catalog.AsyncSchemas.create)
    get = blocking(_catalog.AsyncSchemas.get)
    list = paging(_catalog.AsyncSchemas.list)
    update = blocking(_catalog.AsyncSchemas.update)
    rename = blocking(_catalog.AsyncSchemas.rename)
    delete = blocking(_catalog.AsyncSchemas.delete)
    undelete = blocking(_catalog.AsyncSchemas.undelete)


class Models(Blocking[_catalog.AsyncModels]):
    """`client.models`: registered models, `prod.ml_team.iris`."""

    create = blocking(_catalog.AsyncModels.create)
    get = blocking(_catalog.AsyncModels.get)
    list = paging(_catalog.AsyncModels.list)
    update = blocking(_catalog.AsyncModels.update)
    rename = blocking(_catalog.AsyncModels.rename)
    move = blocking(_catalog.AsyncModels.move)
    delete = blocking(_catalog.AsyncModels.delete)
    undelete = blocking(_catalog.AsyncModels.undelete)


class Versions(Blocking[_versions.AsyncVersions]):
    """`client.versions`: versions of models, `prod.ml_team.iris/3` or `prod.ml_team.iris@champion`."""

    create = blocking(_versions.AsyncVersions.create)
    finalize = blocking(_versions.AsyncVersions.finalize)
    fail = blocking(_versions.AsyncVersions.fail)
    get = blocking(_versions.AsyncVersions.get)
    list = paging(_versions.AsyncVersions.list)
    update = blocking(_versions.AsyncVersions.update)
    copy = blocking(_versions.AsyncVersions.copy)
    delete = blocking(_versions.AsyncVersions.delete)
    undelete = blocking(_versions.AsyncVersions.undelete)


class Aliases(Blocking[_labels.AsyncAliases]):
    """`client.aliases`: names that point at versions of a model."""

    set = blocking(_labels.AsyncAliases.set)
    remove = blocking(_labels.AsyncAliases.remove)
    history = paging(_labels.AsyncAliases.history)
    at = blocking(_labels.AsyncAliases.at)
    rollback = blocking(_labels.AsyncAliases.rollback)


class Tags(Blocking[_labels.AsyncTags]):
    """`client.tags`: short texts on catalogs, schemas, models and versions."""

    set = blocking(_labels.AsyncTags.set)


class Metrics(Blocking[_labels.AsyncMetrics]):
    """`client.metrics`: measurements of a version."""

    set = blocking(_labels.AsyncMetrics.set)


class Lineage(Blocking[_lineage.AsyncLineage]):
    """`client.lineage`: the graph of data sets, runs, versions, deployments and batch jobs."""

    record = blocking(_lineage.AsyncLineage.record)
    delete = blocking(_lineage.AsyncLineage.delete)
    query = blocking(_lineage.AsyncLineage.query)
    upstream = blocking(_lineage.AsyncLineage.upstream)
    downstream = blocking(_lineage.AsyncLineage.downstream)


class Artifacts(Blocking[_artifacts.AsyncArtifacts]):
    """`client.artifacts`: immutable sets of files, stored once by content."""

    upload = blocking(_artifacts.AsyncArtifacts.upload)
    download = blocking(_artifacts.AsyncArtifacts.download)
    download_archive = blocking(_artifacts.AsyncArtifacts.download_archive)
    download_file = blocking(_artifacts.AsyncArtifacts.download_file)
    find = blocking(_artifacts.AsyncArtifacts.find)
    read = blocking(_artifacts.AsyncArtifacts.read)
    open = opening(_artifacts.AsyncArtifacts.open)
    list = paging(_artifacts.AsyncArtifacts.list)
    sign_upload_urls = blocking(_artifacts.AsyncArtifacts.sign_upload_urls)
    finish_blob = blocking(_artifacts.AsyncArtifacts.finish_blob)
    cancel_upload = blocking(_artifacts.AsyncArtifacts.cancel_upload)
    sign_download_urls = blocking(_artifacts.AsyncArtifacts.sign_download_urls)
    list_all = blocking(_artifacts.AsyncArtifacts.list_all)
    read_archive = streaming(_artifacts.AsyncArtifacts.read_archive)
    begin_upload = blocking(_artifacts.AsyncArtifacts.begin_upload)
    get_upload = blocking(_artifacts.AsyncArtifacts.get_upload)
    commit_upload = blocking(_artifacts.AsyncArtifacts.commit_upload)
    get = blocking(_artifacts.AsyncArtifacts.get)
    list_files = paging(_artifacts.AsyncArtifacts.list_files)
    digest_of = blocking(_artifacts.AsyncArtifacts.digest_of)
    read_file = streaming(_artifacts.AsyncArtifacts.read_file)
    sbom = blocking(_artifacts.AsyncArtifacts.sbom)


class Inspections(Blocking[_inspections.AsyncInspections]):
    """`client.inspections`: OCI's introspection tests, formats of files, and harmful content, found by the artifact service."""

    get = blocking(_inspections.AsyncInspections.get)
    start = blocking(_inspections.AsyncInspections.start)
    wait = blocking(_inspections.AsyncInspections.wait)


class Storage(Blocking[_storage.AsyncStorage]):
    """`client.storage`: the store as a whole, for those with MANAGE on the system."""

    statistics = blocking(_storage.AsyncStorage.statistics)
    verify = streaming(_storage.AsyncStorage.verify)
    collect_garbage = blocking(_storage.AsyncStorage.collect_garbage)


class Signatures(Blocking[_signatures.AsyncSignatures]):
    """`client.signatures`: OpenSSF model signatures of artifacts."""

    sign = blocking(_signatures.AsyncSignatures.sign)
    add = blocking(_signatures.AsyncSignatures.add)
    remove = blocking(_signatures.AsyncSignatures.remove)
    list = blocking(_signatures.AsyncSignatures.list)


class TrustRoots(Blocking[_trust.AsyncTrustRoots]):
    """`client.trust_roots`: whose signatures count inside a catalog, schema or model, or everywhere."""

    create = blocking(_trust.AsyncTrustRoots.create)
    delete = blocking(_trust.AsyncTrustRoots.delete)
    list = blocking(_trust.AsyncTrustRoots.list)


class Deployments(Blocking[_deployments.AsyncDeployments]):
    """`client.deployments`: names that answer predictions."""

    create = blocking(_deployments.AsyncDeployments.create)
    get = blocking(_deployments.AsyncDeployments.get)
    list = paging(_deployments.AsyncDeployments.list)
    update = blocking(_deployments.AsyncDeployments.update)
    history = paging(_deployments.AsyncDeployments.history)
    rollback = blocking(_deployments.AsyncDeployments.rollback)
    control_rollout = blocking(_deployments.AsyncDeployments.control_rollout)
    watch = streaming(_deployments.AsyncDeployments.watch)
    activate = blocking(_deployments.AsyncDeployments.activate)
    deactivate = blocking(_deployments.AsyncDeployments.deactivate)
    delete = blocking(_deployments.AsyncDeployments.delete)
    replicas = blocking(_deployments.AsyncDeployments.replicas)
    logs = streaming(_deployments.AsyncDeployments.logs)
    statistics = blocking(_deployments.AsyncDeployments.statistics)
    wait = blocking(_deployments.AsyncDeployments.wait)
    wait_deleted = blocking(_deployments.AsyncDeployments.wait_deleted)
    apply = blocking(_deployments.AsyncDeployments.apply)


class Endpoints(Blocking[_endpoints.AsyncEndpoints]):
    """`client.endpoints`: predictions, and what an endpoint takes and gives."""

    predict = blocking(_endpoints.AsyncEndpoints.predict)
    predict_stream = streaming(_endpoints.AsyncEndpoints.predict_stream)
    metadata = blocking(_endpoints.AsyncEndpoints.metadata)
    statistics = blocking(_endpoints.AsyncEndpoints.statistics)
    ready = blocking(_endpoints.AsyncEndpoints.ready)
    server_live = blocking(_endpoints.AsyncEndpoints.server_live)
    server_ready = blocking(_endpoints.AsyncEndpoints.server_ready)
    server_metadata = blocking(_endpoints.AsyncEndpoints.server_metadata)


class Events(Blocking[_events.AsyncEvents]):
    """`client.events`: every change, as it happens."""

    watch = watching(_events.AsyncEvents.watch)


class Client(Blocking[AsyncClient]):
    """Client of Modelyard; `modelyard.aio.AsyncClient` is the same for `async` programs, and documents every verb.

    Verbs are grouped by noun: `client.models.create(...)`, `client.grants.list(...)`. The things done every day stand on
    the client itself: `log_model`, `deploy`, `predict`, `download`. May be used from several threads at once.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        token: str = "",
        *,
        services: Mapping[str, str] | None = None,
        ca_certificate: str | Path | None = None,
        client_certificate: str | Path | None = None,
        client_key: str | Path | None = None,
        insecure: bool = False,
        timeout: float = 10.0,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        """Say where Modelyard is; nothing connects before the first call. Arguments as of `AsyncClient`."""
        super().__init__(
            AsyncClient(
                target,
                token,
                services=services,
                ca_certificate=ca_certificate,
                client_certificate=client_certificate,
                client_key=client_key,
                insecure=insecure,
                timeout=timeout,
                max_message_bytes=max_message_bytes,
            )
        )
        self.catalogs = Catalogs(self._async.catalogs)
        self.schemas = Schemas(self._async.schemas)
        self.models = Models(self._async.models)
        self.versions = Versions(self._async.versions)
        self.aliases = Aliases(self._async.aliases)
        self.tags = Tags(self._async.tags)
        self.metrics = Metrics(self._async.metrics)
        self.lineage = Lineage(self._async.lineage)
        self.artifacts = Artifacts(self._async.artifacts)
        self.inspections = Inspections(self._async.inspections)
        self.storage = Storage(self._async.storage)
        self.signatures = Signatures(self._async.signatures)
        self.trust_roots = TrustRoots(self._async.trust_roots)
        self.principals = Principals(self._async.principals)
        self.groups = Groups(self._async.groups)
        self.issuers = Issuers(self._async.issuers)
        self.tokens = Tokens(self._async.tokens)
        self.grants = Grants(self._async.grants)
        self.policies = Policies(self._async.policies)
        self.approvals = Approvals(self._async.approvals)
        self.audit = Audit(self._async.audit)
        self.cards = Cards(self._async.cards)
        self.webhooks = Webhooks(self._async.webhooks)
        self.shares = Shares(self._async.shares)
        self.bundles = Bundles(self._async.bundles)
        self.deployments = Deployments(self._async.deployments)
        self.endpoints = Endpoints(self._async.endpoints)
        self.events = Events(self._async.events)

    @classmethod
    def from_context(cls, name: str | None = None, *, timeout: float = 10.0) -> Self:
        """As `AsyncClient.from_context`."""
        return cls(**contexts.resolve(name).connection(), timeout=timeout)

    log_model = blocking(AsyncClient.log_model)
    log_input = blocking(AsyncClient.log_input)
    deploy = blocking(AsyncClient.deploy)
    predict = blocking(AsyncClient.predict)
    download = blocking(AsyncClient.download)
    whoami = blocking(AsyncClient.whoami)
    limits = blocking(AsyncClient.limits)
    access_token = blocking(AsyncClient.access_token)
    close = blocking(AsyncClient.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


__all__ = ["Client", "EventWatch", "Pager"]
