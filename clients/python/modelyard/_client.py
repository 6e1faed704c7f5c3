"""The asynchronous client: everything else is a facade of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from modelyard import contexts
from modelyard._approvals import AsyncApprovals, AsyncPolicies
from modelyard._artifacts import AsyncArtifacts
from modelyard._audit import AsyncAudit
from modelyard._cards import AsyncCards
from modelyard._catalog import AsyncCatalogs, AsyncModels, AsyncSchemas
from modelyard._channel import DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_TARGET
from modelyard._connection import Connection
from modelyard._convert import rows
from modelyard._deployments import AsyncDeployments
from modelyard._endpoints import AsyncEndpoints
from modelyard._events import AsyncEvents
from modelyard._governance import (
    AsyncGrants,
    AsyncPrincipals,
    AsyncTokens,
)
from modelyard._identities import AsyncGroups, AsyncIssuers
from modelyard._inspections import AsyncInspections
from modelyard._labels import AsyncAliases, AsyncMetrics, AsyncTags
from modelyard._lineage import AsyncLineage, input_edges
from modelyard._log_model import log_model
from modelyard._sharing import AsyncBundles, AsyncShares
from modelyard._signatures import AsyncSignatures
from modelyard._storage import AsyncStorage
from modelyard._trust import AsyncTrustRoots
from modelyard._versions import AsyncVersions
from modelyard._webhooks import AsyncWebhooks
from modelyard.api.catalog.v1 import catalog_service_pb2
from modelyard.types import Limit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from modelyard._deployments import Targets
    from modelyard._progress import Progress
    from modelyard.types import (
        Dataset,
        Deployment,
        ModelMetadata,
        ModelVersion,
        Prediction,
        Principal,
        Signature,
    )


class AsyncClient:
    """Client of Modelyard for `async` programs; `modelyard.Client` is the same for all others.

    Verbs are grouped by noun: `client.models.create(...)`, `client.grants.list(...)`. The things done every day stand on
    the client itself: `log_model`, `deploy`, `predict`, `download`.

    Attributes:
        catalogs: Outermost namespaces.
        schemas: Namespaces inside a catalog.
        models: Registered models.
        versions: Versions of models.
        aliases: Names that point at versions.
        tags: Short texts on everything in the catalog.
        metrics: Measurements of versions.
        lineage: What was made from what.
        artifacts: The bytes of versions.
        inspections: What was found out about artifacts from their files.
        storage: The store of artifacts as a whole.
        signatures: OpenSSF model signatures of artifacts.
        trust_roots: Whose signatures count.
        principals: Users, service accounts and groups.
        groups: Who is in which group.
        issuers: OpenID Connect providers whose tokens are accepted.
        tokens: API tokens.
        grants: Who may do what.
        policies: What a version needs before it may be used.
        approvals: Reviews of versions.
        audit: Everything that was changed.
        cards: Model cards of versions.
        webhooks: Addresses that are told of events.
        shares: What may leave the installation, and who may export it.
        bundles: Models as files that are signed and complete.
        deployments: Names that answer predictions.
        endpoints: Deployments as those who predict see them.
        events: Every change, as it happens.
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
        """Say where Modelyard is; nothing connects before the first call.

        Args:
            target: Address of the gateway: `host:port`, `https://host:port`, `unix:/path`.
            token: API token, exchanged for short-lived ones as needed; or a JWT, sent as it is.
            services: Other targets for single services (`catalog`, `artifact`, `governance`, `inference`, `serving`),
                where there is no gateway.
            ca_certificate: File with the certificates to trust (PEM), if not those of the system.
            client_certificate: File with the certificate (PEM, with its chain) to show to a gateway that asks for one (mTLS).
            client_key: File with its key (PEM, without a password). When either file is renewed, new calls use it.
            insecure: Allow a connection without TLS to another machine.
            timeout: Seconds that a call may take where it does not say otherwise.
            max_message_bytes: Largest message sent or received.

        Raises:
            ConfigurationError: a target is malformed, or would send the token in the clear; a certificate or key cannot be used.
        """
        self._connection = Connection(
            target,
            token,
            services=services or {},
            ca_certificate=ca_certificate,
            client_certificate=client_certificate,
            client_key=client_key,
            insecure=insecure,
            timeout=timeout,
            max_message_bytes=max_message_bytes,
        )
        self.catalogs = AsyncCatalogs(self._connection)
        self.schemas = AsyncSchemas(self._connection)
        self.models = AsyncModels(self._connection)
        self.versions = AsyncVersions(self._connection)
        self.aliases = AsyncAliases(self._connection)
        self.tags = AsyncTags(self._connection)
        self.metrics = AsyncMetrics(self._connection)
        self.lineage = AsyncLineage(self._connection)
        self.artifacts = AsyncArtifacts(self._connection)
        self.inspections = AsyncInspections(self._connection)
        self.storage = AsyncStorage(self._connection)
        self.signatures = AsyncSignatures(self._connection)
        self.trust_roots = AsyncTrustRoots(self._connection)
        self.principals = AsyncPrincipals(self._connection)
        self.groups = AsyncGroups(self._connection)
        self.issuers = AsyncIssuers(self._connection)
        self.tokens = AsyncTokens(self._connection)
        self.grants = AsyncGrants(self._connection)
        self.policies = AsyncPolicies(self._connection)
        self.approvals = AsyncApprovals(self._connection)
        self.audit = AsyncAudit(self._connection)
        self.cards = AsyncCards(self._connection)
        self.webhooks = AsyncWebhooks(self._connection)
        self.shares = AsyncShares(self._connection)
        self.bundles = AsyncBundles(self._connection)
        self.deployments = AsyncDeployments(self._connection)
        self.endpoints = AsyncEndpoints(self._connection)
        self.events = AsyncEvents(self._connection)

    @classmethod
    def from_context(cls, name: str | None = None, *, timeout: float = 10.0) -> Self:
        """The client for a saved context (`modelyard login`), by default the current one.

        MODELYARD_TARGET and MODELYARD_TOKEN override it.

        Raises:
            ConfigurationError: there is no such context, or its file is readable by others.
        """
        return cls(**contexts.resolve(name).connection(), timeout=timeout)

    async def log_model(
        self,
        model: Any,
        name: str,
        *,
        example: Any = None,
        keep_example: bool = True,
        runtime: str | None = None,
        signature: Signature | None = None,
        requirements: Sequence[str] | Literal["installed"] = (),
        label: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, Any] | None = None,
        metadata: ModelMetadata | None = None,
        inputs: Sequence[Dataset] = (),
        aliases: Sequence[str] = (),
        create: bool = True,
        progress: Progress = None,
    ) -> ModelVersion:
        """Save a trained model, upload it and register it as a new version.

        Args:
            model: A fitted estimator of scikit-learn, XGBoost or LightGBM (also their boosters), an ONNX model (object or bytes),
                a PyTorch module or exported program, a pipeline of transformers, a `RemoteModel` that another server runs, or
                the path of a saved model.
            name: Full name of the model, `prod.ml_team.iris`.
            example: Rows as the model takes them; the signature is told from what it answers to them.
            keep_example: Store the first eight rows of the example with a model that is saved here (`warmup.jsonl`), so that
                replicas predict them before they answer anybody. False for rows that not everybody who reads the model may see.
            runtime: Runtime that loads it, by default told from the model: `sklearn`, `onnx`, `xgboost` …
            signature: The signature, instead of an example.
            requirements: Lines of a requirements.txt that is stored with the model, which replicas may get an environment of
                their own from; `installed` for the versions here of the packages that the model needs.
            label: Second name of the version, unique within the model: `1.4.0`.
            description: Free text.
            tags: Tags of the version.
            metrics: Any JSON values.
            metadata: What the version is for and how it was made. Fields left empty are told from the model where it
                tells: framework and its version, algorithm, use case and hyperparameters of an estimator.
            inputs: The data sets it was made from; `log_input` adds more afterwards.
            aliases: Aliases to point at the new version.
            create: Register the model if it is new; its catalog and schema must exist.
            progress: As for `artifacts.upload`.

        Returns:
            The version, READY to be approved and deployed.
        """
        return await log_model(
            self._connection,
            self.artifacts,
            model,
            name,
            runtime=runtime,
            example=example,
            keep_example=keep_example,
            signature=signature,
            requirements=requirements,
            label=label,
            description=description,
            tags=tags,
            metrics=metrics,
            metadata=metadata,
            inputs=inputs,
            aliases=aliases,
            create=create,
            progress=progress,
        )

    async def log_input(self, reference: str, *datasets: Dataset) -> None:
        """Record in the lineage graph that a version was made from data sets; see `inputs` of `log_model`.

        Args:
            reference: Version reference.
            datasets: States of data sets, each with its role: `training`, `validation`, `test`.
        """
        await self.lineage.record(*input_edges(reference, datasets))

    async def deploy(
        self,
        name: str,
        targets: Targets | None = None,
        *,
        replicas: int | None = None,
        description: str | None = None,
        wait: bool = True,
        timeout: float = 300.0,
    ) -> Deployment:
        """Make an endpoint, or change it if it exists, and wait until it answers.

        Args:
            name: Full name of the deployment.
            targets: Version references, if wanted with weights; by default the default version of the model that has
                the name of the deployment.
            replicas: Processes per target.
            description: Free text.
            wait: Wait until it is ACTIVE.
            timeout: Longest wait in seconds.

        Raises:
            DeploymentFailed: it could not be brought up.
            PolicyUnmet: a policy holds a version back.
        """
        deployment = await self.deployments.apply(
            name, name if targets is None else targets, replicas=replicas, description=description
        )
        return await self.deployments.wait(name, timeout=timeout) if wait else deployment

    async def predict(
        self,
        name: str,
        inputs: Any,
        *,
        version: int | None = None,
        method: str = "",
        outputs: Sequence[str] = (),
        timeout: float = 60.0,
    ) -> Prediction:
        """Predict with a deployment: see `endpoints.predict`."""
        return await self.endpoints.predict(
            name, inputs, version=version, method=method, outputs=outputs, timeout=timeout
        )

    async def download(
        self, reference: str, destination: str | Path, *, overwrite: bool = False, progress: Progress = None
    ) -> Path:
        """Fetch the files of a version into a folder, verified; returns the folder."""
        return await self.artifacts.download(reference, destination, overwrite=overwrite, progress=progress)

    async def whoami(self) -> Principal:
        """Who you are to the services."""
        return await self.principals.get_caller()

    async def limits(self) -> list[Limit]:
        """Every published limit, by name."""
        request = catalog_service_pb2.GetLimitsRequest()
        answer = await self._connection.call(self._connection.catalog.GetLimits, request)
        return rows(Limit, answer.limits)

    async def access_token(self) -> str:
        """The short-lived token that calls carry, for other programs: `authorization: Bearer …`."""
        return await self._connection.access_token()

    async def close(self) -> None:
        """Close the connection; calls in progress are cancelled."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
