"""The story itself: each function is one step and reads as what a user would do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard import Client, errors
from modelyard.types import AuditEntry, ModelVersion, TensorSpec
from modelyard_suite import plan, secrets, suite
from modelyard_suite.demo.screen import Screen
from modelyard_suite.home import Home

if TYPE_CHECKING:
    from modelyard_suite.demo.training import Lesson

MODEL = "prod.oncology.tumour"
DEPLOYMENT = MODEL  # models and deployments have separate names; a deployment is usually called as its model
SHOWN_ROWS = 5


class StoryError(RuntimeError):
    """Something did not happen as the story tells it."""


@dataclass(frozen=True)
class Cast:
    """Who acts, each with a client and a token of its own."""

    admin: Client
    ada: Client  # trains and deploys
    grace: Client  # reviews
    bob: Client  # predicts
    eve: Client  # may do nothing


def tell(*, keep: bool, folder: Path | None) -> None:
    """Run the whole story, and stop and delete everything unless `keep`.

    Raises:
        StoryError: a step went wrong.
    """
    screen = Screen()
    root = (folder or Path(tempfile.mkdtemp(prefix="modelyard-demo-"))).resolve()
    home = Home(root / "suite")
    options = plan.Options(listen=f"127.0.0.1:{plan.free_port()}")
    try:
        with ExitStack() as stack:
            with screen.step("Start the suite"):
                state = suite.start_in_background(home, options)
                screen.say(f"home {root}, gateway {state.target}")
                screen.table(
                    ("process", "pid"),
                    [(name, str(process.pid)) for name, process in state.processes.items()],
                )
            _chapters(screen, stack, home, options.listen)
    except BaseException:
        _stop_if_running(home)
        raise
    if keep:
        screen.end("It goes on running.")
        screen.say(f"export MODELYARD_HOME={root}")
        screen.say("modelyard status; modelyard whoami; modelyard deployments list; modelyard down")
        return
    with screen.step("Stop everything"):
        suite.stop(home)
        left = suite.processes_of(home)
        if left:
            raise StoryError(f"these still run: {left}")
        screen.say("every process has ended; nothing is left running")
        if folder is None:
            shutil.rmtree(root)
    screen.end("That was Modelyard.")


def _stop_if_running(home: Home) -> None:
    if home.is_locked() or home.state():
        suite.stop(home)


def _chapters(screen: Screen, stack: ExitStack, home: Home, target: str) -> None:
    # Imported here: scikit-learn and tritonclient take a second, during which nothing would be shown.
    from modelyard_suite.demo.training import train

    with screen.step("Train two models"):
        lesson = train()
        screen.table(
            ("model", "accuracy", "ROC AUC"),
            [
                (one.name, *(f"{value:.4f}" for value in one.metrics.values()))
                for one in (lesson.first, lesson.second)
            ],
        )
    with screen.step("Log both, as Ada"):
        cast = stack.enter_context(_cast(home, target))
        _set_the_stage(screen, cast)
        versions = _log_both(screen, cast, lesson)
    with screen.step("Approve version 1 and deploy it"):
        _approve_and_deploy(screen, cast)
    with screen.step("Predict by four clients"):
        _predict_four_ways(screen, cast, target, lesson, versions[0])
    with screen.step("Move the alias to version 2 under load"):
        _switch_under_load(screen, cast, lesson)
    with screen.step("Refuse a stranger, and read the audit trail"):
        _refuse_and_audit(screen, cast, lesson)


@contextmanager
def _cast(home: Home, target: str) -> Iterator[Cast]:
    """Make the users and give each a client."""
    with ExitStack() as stack:
        token = home.token_file(secrets.ADMINISTRATOR).read_text().strip()
        admin = stack.enter_context(Client(target, token=token))
        people = {}
        for name in ("ada", "grace", "bob", "eve"):
            admin.principals.create(name)
            secret = admin.tokens.create(principal=name, description="demo").secret
            people[name] = stack.enter_context(Client(target, token=secret))
        yield Cast(admin, **people)


def _set_the_stage(screen: Screen, cast: Cast) -> None:
    catalog, schema = MODEL.partition(".")[0], MODEL.rpartition(".")[0]
    cast.admin.catalogs.create(catalog, description="What customers see.")
    cast.admin.schemas.create(schema)
    cast.admin.policies.set(
        catalog, required_approvals=1, protected_aliases=["champion"], protect_deployments=True
    )
    rights = {
        "ada": ("CREATE_MODEL", "CREATE_VERSION", "READ_METADATA", "DEPLOY"),
        "grace": ("READ_METADATA", "READ_ARTIFACT", "APPROVE"),
        "bob": ("EXECUTE",),
    }
    for name, privileges in rights.items():
        for privilege in ("USE_CATALOG", "USE_SCHEMA", *privileges):
            cast.admin.grants.create(name, privilege, catalog)
    screen.table(
        ("user", f"privileges on catalog {catalog}"), [(name, ", ".join(p)) for name, p in rights.items()]
    )
    screen.say(
        f"policy on {catalog}: alias champion and deployments need an approval by somebody other than the author"
    )


def _log_both(screen: Screen, cast: Cast, lesson: Lesson) -> list[ModelVersion]:
    versions = [
        cast.ada.log_model(
            one.model,
            MODEL,
            example=lesson.rows[:SHOWN_ROWS],
            metrics=one.metrics,
            tags={"algorithm": one.name, "data": "breast cancer Wisconsin"},
            description=f"{one.name}, trained on 426 rows",
            progress=False,
        )
        for one in (lesson.first, lesson.second)
    ]
    screen.table(
        ("version", "state", "artifact (hashed by the server)", "signature", "git commit"),
        [
            (
                version.name,
                str(version.state),
                version.artifact_digest[:19] + "…",
                _signature(version),
                version.provenance.git_commit[:12] or "none",
            )
            for version in versions
        ],
    )
    return versions


def _signature(version: ModelVersion) -> str:
    if version.signature is None:
        return "none"
    method = version.signature.methods[0]
    return f"{method.name}({_tensors(method.inputs)}): {_tensors(method.outputs)}"


def _tensors(specs: Iterable[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in specs)


def _approve_and_deploy(screen: Screen, cast: Cast) -> None:
    try:
        cast.ada.aliases.set(MODEL, {"champion": 1})
    except errors.PolicyUnmet as error:
        screen.say(f"Ada points champion at version 1: refused, {error}")
    else:
        raise StoryError("the policy did not hold back an alias on an unapproved version")
    try:
        cast.ada.approvals.review(f"{MODEL}/1", "APPROVE")
    except errors.SelfApproval as error:
        screen.say(f"Ada approves it herself: refused, {error}")
    else:
        raise StoryError("the author could approve her own version")
    approval = cast.grace.approvals.review(f"{MODEL}/1", "APPROVE", comment="Metrics and data look right.")
    screen.say(f"Grace approves it: {approval.state}")
    cast.ada.aliases.set(MODEL, {"champion": 1})
    screen.say("Ada points champion at version 1: done")
    cast.ada.deployments.create(DEPLOYMENT, f"{MODEL}@champion", replicas=2)
    cast.ada.deployments.wait(DEPLOYMENT, timeout=60)
    screen.table(
        ("replica", "version", "state", "pid"),
        [
            (replica.id[-12:], replica.model_version, str(replica.state), str(replica.process_id))
            for replica in cast.ada.deployments.replicas(DEPLOYMENT)
        ],
    )


def _predict_four_ways(
    screen: Screen, cast: Cast, target: str, lesson: Lesson, version: ModelVersion
) -> None:
    from modelyard_suite.demo import clients

    rows, token = lesson.rows, cast.bob.access_token()
    answers = {
        "Python client": clients.by_python_client(cast.bob, DEPLOYMENT, rows),
        "generated gRPC stub": clients.by_grpc_stub(target, token, DEPLOYMENT, rows),
        "tritonclient.grpc": clients.by_tritonclient(target, token, DEPLOYMENT, rows),
        "curl, REST": clients.by_curl(target, token, DEPLOYMENT, rows),
    }
    expected = lesson.first.model.predict(rows)
    for name, answer in answers.items():
        if answer.labels.tolist() != expected.tolist():
            raise StoryError(f"{name} does not agree with the model's own predict")
        if (answer.version, answer.digest) != (str(version.number), version.artifact_digest):
            raise StoryError(
                f"{name} was answered by {answer.version} {answer.digest}, not by {version.name}"
            )
    screen.table(
        ("client", "rows", "first labels", "version", "artifact", "agrees with predict()"),
        [
            (
                name,
                str(len(rows)),
                str(one.labels[:SHOWN_ROWS].tolist()),
                one.version,
                one.digest[:19] + "…",
                "yes",
            )
            for name, one in answers.items()
        ],
    )


def _switch_under_load(screen: Screen, cast: Cast, lesson: Lesson) -> None:
    from modelyard_suite.demo.load import Load

    rows = lesson.rows[:1]
    with Load.running(lambda: cast.bob.predict(DEPLOYMENT, rows).model_version) as load:
        load.wait_for(1, 100)
        cast.grace.approvals.review(f"{MODEL}/2", "APPROVE", comment="Better on the held-out rows.")
        cast.ada.aliases.set(MODEL, {"champion": 2}, expected={"champion": 1})
        load.wait_for(2, 100)
    if load.errors:
        raise StoryError(f"{len(load.errors)} predictions failed during the switch: {load.errors[0]!r}")
    cast.ada.deployments.wait(DEPLOYMENT, timeout=60)
    answer = cast.bob.predict(DEPLOYMENT, lesson.rows, outputs=["output"])
    if answer.output.tolist() != lesson.second.model.predict(lesson.rows).tolist():
        raise StoryError("the answers are not those of version 2")
    screen.say(
        f"{len(load.versions)} predictions while it switched: {load.count(1)} by version 1, {load.count(2)} by version 2"
    )
    screen.say(f"failed: {len(load.errors)}; answers now come from version {answer.model_version}")


def _refuse_and_audit(screen: Screen, cast: Cast, lesson: Lesson) -> None:
    try:
        cast.eve.predict(DEPLOYMENT, {"input": lesson.rows[:1]})
    except errors.PermissionDenied as error:
        screen.say(f"Eve predicts without EXECUTE: refused, {error}")
    else:
        raise StoryError("a user without EXECUTE could predict")
    screen.table(("who", "what", "to", "times"), _summary(cast.admin.audit.list()))
    verification = cast.admin.audit.verify()
    if not verification.valid:
        raise StoryError(
            f"the audit chain is broken at {verification.broken_sequence}: {verification.problem}"
        )
    screen.say(f"hash chain verified: {verification.entries} entries, head {verification.head_hash[:16]}…")


def _summary(entries: Iterable[AuditEntry]) -> list[tuple[str, str, str, str]]:
    """Return the trail with equal neighbours counted, without the tokens that services and people were given."""
    told = [entry.event for entry in entries if not entry.event.type.startswith("governance.token.")]
    lines = [(event.actor_name, event.type, _short(event.resource.name)) for event in told]
    return [(*line, str(len(list(same)))) for line, same in groupby(lines)]


def _short(name: str) -> str:
    return name[:19] + "…" if name.startswith("sha256:") else name
