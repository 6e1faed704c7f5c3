"""What targets mean, and whether a caller and the policies let them be deployed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from modelyard.references import PREFIX, parse_version_reference
from modelyard_inference.models import Deployment, PastTarget, Target, TargetSpec, Version
from modelyard_inference.ports import Upstream
from modelyard_kit.access import Privilege
from modelyard_kit.auth import Call
from modelyard_kit.errors import Contention
from modelyard_kit.grants import Grants


class Targets:
    """Resolves targets with the rights of a caller.

    Args:
        upstream: catalog and governance.
        grants: what principals may do.
    """

    def __init__(self, upstream: Upstream, grants: Grants) -> None:
        self._upstream = upstream
        self._grants = grants

    async def still_meant(self, targets: Sequence[Target], specs: Sequence[TargetSpec]) -> set[str]:
        """Return those references of targets that are asked for again and name the same model as when they were given."""
        asked = {spec.reference for spec in specs}
        kept = set()
        for target in targets:
            if target.spec.reference in asked:
                chain = await self._upstream.nearest_chain(target.spec.model)
                if chain[0].id == target.wanted.model_id:
                    kept.add(target.spec.reference)
        return kept

    async def approve(self, call: Call, specs: Sequence[TargetSpec]) -> list[tuple[TargetSpec, Version]]:
        """Resolve targets and check that the caller and the policies let them be deployed."""
        approved = []
        for spec in specs:
            # The privilege first: who lacks it must not learn which versions and aliases exist.
            self._grants.require(
                call.principal, Privilege.DEPLOY, await self._upstream.nearest_chain(spec.model)
            )
            version = await self._upstream.version(spec.reference)
            await self._upstream.gate(version, await self._upstream.version_chain(version.name))
            approved.append((spec, version))
        return approved

    async def again(self, call: Call, deployment: Deployment) -> None:
        """Ask again whether a caller and the policies let what a deployment wants be deployed.

        Raises:
            NotFound: a version is gone.
            PermissionDenied: the caller lacks DEPLOY on the model of a target.
            PolicyUnmet: a policy forbids to deploy a version.
            PeerUnavailable: catalog or governance does not answer.
        """
        for target in deployment.targets:
            chain = await self._upstream.version_chain(await self._upstream.version_name(target.wanted.id))
            self._grants.require(call.principal, Privilege.DEPLOY, chain[1:])
            await self._upstream.gate(target.wanted, chain)

    async def past(self, targets: Sequence[PastTarget], *, pinned: bool) -> tuple[TargetSpec, ...]:
        """Return targets of a revision as they are asked for now: their models may have other names since.

        Args:
            targets: what the revision keeps.
            pinned: whether each becomes the version that it meant then.

        Raises:
            NotFound: a version, or its model, is gone.
            PeerUnavailable: the catalog does not answer.
        """
        weights = Counter[str]()  # two references may have meant one version
        shadows = {}
        for target in targets:
            if pinned:
                reference = await self._upstream.version_name(target.version_id)
            else:
                reference = renamed(target.reference, await self._upstream.model_name(target.model_id))
            if target.shadow_percent:
                shadows[reference] = target.shadow_percent
            else:
                weights[reference] += target.weight
        # A shadow that meant what answers would be compared with itself.
        specs = [_spec(reference, percent=p) for reference, p in shadows.items() if reference not in weights]
        return (*(_spec(reference, weight) for reference, weight in weights.items()), *specs)


def _spec(text: str, weight: int = 0, *, percent: int = 0) -> TargetSpec:
    reference = parse_version_reference(text)
    follows = reference.number is None
    return TargetSpec(text, reference.model, follows=follows, weight=weight, shadow_percent=percent)


def renamed(reference: str, model: str) -> str:
    """Return a reference with another name of its model, otherwise as it was given."""
    parsed = parse_version_reference(reference)
    if parsed.model == model:
        return reference
    prefix = PREFIX if reference.startswith(PREFIX) else ""
    return f"{prefix}{replace(parsed, model=model)}"


def retargeted(
    before: Deployment, specs: Sequence[TargetSpec], approved: Mapping[str, Target]
) -> tuple[Target, ...]:
    """Return the new targets; each knows what answers in its place until the traffic shifts."""
    kept = {target.spec.reference: target for target in before.targets}
    result = []
    for position, spec in enumerate(specs):
        found = approved.get(spec.reference) or kept.get(spec.reference)
        if (
            found is None
        ):  # it was a target when the caller's rights were checked, and another caller removed it since
            raise Contention(1)
        target = replace(found, spec=spec)
        new = spec.reference in approved or found.spec.shadow is not spec.shadow
        result.append(_in_place(before, position, target) if new else target)
    return tuple(result)


def _in_place(before: Deployment, position: int, target: Target) -> Target:
    """Return a target with what answers in its place; a shadow has a place only where one was before."""
    places = [other for other in before.targets if other.spec.shadow is target.spec.shadow]
    if not places:
        return replace(target, serving="", serving_digest="", serving_weight=0)
    place = places[min(position, len(places) - 1)]
    return replace(
        target,
        serving=place.serving,
        serving_digest=place.serving_digest,
        serving_weight=place.serving_weight,
    )
