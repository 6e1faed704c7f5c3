"""Composition root of the governance service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from pydantic import Field

from modelyard.api.governance.v1.governance_service_pb2_grpc import add_GovernanceServiceServicer_to_server
from modelyard_governance import messages
from modelyard_governance.access import access_table
from modelyard_governance.approvals import Approvals
from modelyard_governance.audit import Audit
from modelyard_governance.audit_key import AuditKey, load_or_create_audit_key
from modelyard_governance.bootstrap import UnusableBootstrapError, bootstrap
from modelyard_governance.cards.facts import CatalogFacts
from modelyard_governance.cards.rules import Cards
from modelyard_governance.checkpoints import Checkpoints
from modelyard_governance.directory import PeerDirectory
from modelyard_governance.evidence import PeerEvidence
from modelyard_governance.federation import Federation
from modelyard_governance.gates import Gates
from modelyard_governance.grants import GrantRules
from modelyard_governance.groups import Groups
from modelyard_governance.identity import Identity
from modelyard_governance.keyring import KeyRing
from modelyard_governance.oidc import IssuerKeys
from modelyard_governance.permissions import PermissionFeed
from modelyard_governance.secret_files import UnusableSecretError
from modelyard_governance.servicer import GovernanceServicer
from modelyard_governance.shares.bundles import Bundles
from modelyard_governance.shares.origin import PeerOrigin
from modelyard_governance.shares.rules import Shares
from modelyard_governance.signing import Signer, UnusableKeyError, load_or_create_key
from modelyard_governance.standings import Standings
from modelyard_governance.store.identity import account_by_name
from modelyard_governance.trust import TrustRoots
from modelyard_governance.webhooks.dispatcher import Dispatcher
from modelyard_governance.webhooks.rules import Webhooks
from modelyard_governance.webhooks.secrets import Sealer, load_or_create_sealer
from modelyard_governance.webhooks.sender import Sender
from modelyard_kit.auth import TokenVerifier
from modelyard_kit.chassis import Chassis, Service
from modelyard_kit.config import Settings
from modelyard_kit.outbox import Event
from modelyard_kit.protos import event_to_proto

FULL_NAME = "modelyard.api.governance.v1.GovernanceService"
OWN_NAME = "governance"


class GovernanceSettings(Settings):
    """What the governance service is told beside what every service is told."""

    signing_key_file: Path = Field(description="EC P-256 private key (PEM) that signs JWTs; made if missing.")
    bootstrap_directory: Path | None = Field(
        None, description="Folder with admin.token and <service>.token of the installation."
    )
    audit_key_file: Path | None = Field(
        None,
        description="Ed25519 private key (PEM) that signs the audit chain; made if missing, by default beside the other.",
    )
    audit_checkpoint_seconds: int = Field(
        3_600, ge=1, description="Time between checkpoints of the audit chain."
    )
    audit_retention_days: int = Field(
        0, ge=0, description="Days that audit entries are kept at least; 0 keeps them for ever."
    )
    webhook_key_file: Path | None = Field(
        None,
        description="Keys (Fernet) that encrypt the secrets of webhooks; made if missing, by default beside the others.",
    )
    webhook_private_targets: bool = Field(
        False,
        description="Whether webhooks may call addresses inside (private, loopback, link-local), and by http.",
    )
    webhook_timeout_seconds: float = Field(
        10.0, gt=0, le=60, description="Time that the receiver of a webhook has to answer."
    )
    token_lifetime_seconds: int = Field(900, ge=30, le=86_400, description="Life of a JWT.")
    key_overlap_seconds: float = Field(
        60.0, ge=0, description="Time from the publication of a new signing key to its first signature."
    )


@asynccontextmanager
async def build(chassis: Chassis) -> AsyncIterator[Service]:
    """Wire the parts together. Governance is its own issuer, watcher and audit sink, so it calls nobody for these."""
    settings: GovernanceSettings = chassis.settings
    database, clock = chassis.db, chassis.clock
    try:
        key = load_or_create_key(settings.signing_key_file)
        audit_key = load_or_create_audit_key(
            settings.audit_key_file or settings.signing_key_file.with_name("audit_key.pem")
        )
        sealer = load_or_create_sealer(
            settings.webhook_key_file or settings.signing_key_file.with_name("webhook.key")
        )
        if settings.bootstrap_directory is not None:
            await bootstrap(database, settings.bootstrap_directory, clock=clock)
    except (UnusableKeyError, UnusableBootstrapError, UnusableSecretError) as error:
        raise SystemExit(str(error)) from error
    signer = Signer(key, issuer=settings.issuer, lifetime=timedelta(seconds=settings.token_lifetime_seconds))
    overlap = timedelta(seconds=settings.key_overlap_seconds)
    keyring = KeyRing(database=database, root=key, signer=signer, overlap=overlap, clock=clock)
    await keyring.load()
    await _sign_own_calls(chassis, signer)
    feed = PermissionFeed(database, chassis.grants)
    await feed.refresh()
    directory = PeerDirectory(chassis.peers)
    standings = Standings(
        database=database, directory=directory, catalog=directory, grants=chassis.grants, clock=clock
    )
    approvals = Approvals(
        database=database, directory=directory, grants=chassis.grants, clock=clock, wake=standings.wake
    )
    dispatcher = _dispatcher(chassis, sealer)

    def wake() -> None:
        standings.wake()
        dispatcher.wake()

    audit = Audit(
        database=database,
        feed=feed,
        clock=clock,
        wake=wake,
        signed=audit_key.problem,
        directory=directory,
    )
    checkpoints = _checkpoints(chassis, audit_key)
    cards = Cards(
        database=database,
        directory=directory,
        facts=CatalogFacts(chassis.peers, chassis.grants, directory),
        clock=clock,
    )
    servicer = GovernanceServicer(
        identity=Identity(database=database, grants=chassis.grants, feed=feed, signer=signer, clock=clock),
        grants=GrantRules(
            database=database, grants=chassis.grants, feed=feed, directory=directory, clock=clock
        ),
        feed=feed,
        approvals=approvals,
        trust_roots=TrustRoots(database=database, directory=directory, clock=clock),
        audit=audit,
        groups=Groups(database=database, feed=feed, clock=clock),
        federation=Federation(database=database, feed=feed, signer=signer, keys=IssuerKeys(), clock=clock),
        keyring=keyring,
        gates=Gates(
            database=database,
            directory=directory,
            approvals=approvals,
            evidence=PeerEvidence(chassis.peers),
            cards=cards,
            clock=clock,
        ),
        checkpoints=checkpoints,
        cards=cards,
        webhooks=Webhooks(
            database=database,
            sealer=sealer,
            clock=clock,
            wake=dispatcher.wake,
            allow_private=settings.webhook_private_targets,
        ),
        shares=Shares(database=database, directory=directory, grants=chassis.grants, clock=clock),
        bundles=Bundles(
            database=database,
            directory=directory,
            origin=PeerOrigin(chassis.peers),
            approvals=approvals,
            grants=chassis.grants,
            key=audit_key,
            installation=settings.issuer,
            clock=clock,
        ),
        known=chassis.grants,
    )

    async def record_own_events(events: Sequence[Event]) -> None:
        await audit.record([messages.parse_event(event_to_proto(event)) for event in events])

    yield Service(
        name=OWN_NAME,
        full_name=FULL_NAME,
        register=lambda server: add_GovernanceServiceServicer_to_server(servicer, server),
        access=access_table(directory),
        background=(feed.run, standings.run, keyring.follow, checkpoints.run, dispatcher.run),
        verifier=TokenVerifier(settings.issuer, signer.keys),
        event_sink=record_own_events,
    )


async def _sign_own_calls(chassis: Chassis, signer: Signer) -> None:
    """Let calls to other services carry a JWT signed here; without such a principal the token file is exchanged as usual."""
    account = await chassis.db.read(lambda connection: account_by_name(connection, OWN_NAME))
    if account is None:
        return

    async def own_token() -> str:
        return signer.sign(account, now=chassis.clock())[0]

    chassis.peers.use_tokens(own_token)


def _checkpoints(chassis: Chassis, key: AuditKey) -> Checkpoints:
    settings: GovernanceSettings = chassis.settings
    return Checkpoints(
        database=chassis.db,
        key=key,
        clock=chassis.clock,
        interval=timedelta(seconds=settings.audit_checkpoint_seconds),
        retention=timedelta(days=settings.audit_retention_days) or None,
    )


def _dispatcher(chassis: Chassis, sealer: Sealer) -> Dispatcher:
    settings: GovernanceSettings = chassis.settings
    sender = Sender(
        sealer=sealer,
        clock=chassis.clock,
        source=f"/modelyard/{settings.issuer}",
        timeout=settings.webhook_timeout_seconds,
        allow_private=settings.webhook_private_targets,
    )
    lease = timedelta(seconds=3 * settings.webhook_timeout_seconds)
    return Dispatcher(database=chassis.db, sender=sender, clock=chassis.clock, lease=lease)
