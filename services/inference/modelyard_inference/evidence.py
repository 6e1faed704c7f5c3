"""What a replica checks the signatures of its artifact by, and what the check said.

The control plane gathers it: signatures from the artifact service, trust roots from governance. The replica is the one who checks,
right before it loads, from the files as they lie on its disk (`replica/verification.py`); it believes nobody's word about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from modelyard.signing import Root


class SignatureState(StrEnum):
    """What the check at load said, from the weakest to the strongest; the names are those of the contract."""

    UNSIGNED = "UNSIGNED"
    """The artifact has no signature."""
    UNKNOWN_KEY = "UNKNOWN_KEY"
    """It is signed, with a key that no trust root vouches for."""
    TRUSTED = "TRUSTED"
    """A trust root vouches for a signature of exactly these files."""


@dataclass(frozen=True)
class Verdict:
    """What the check at load said about an artifact that it let pass."""

    state: SignatureState
    signer: str = ""
    """Who signed: fingerprint of the key, or subject of the certificate."""
    trust_root: str = ""
    """Name of the trust root that vouches for it."""


@dataclass(frozen=True)
class Bundle:
    """A signature of an artifact."""

    text: str
    trusted_by: str = ""
    """Name of the trust root that vouches for it, or once did."""


@dataclass(frozen=True)
class Evidence:
    """The signatures of an artifact, and the trust roots that count for its model."""

    bundles: tuple[Bundle, ...] = ()
    roots: tuple[Root, ...] = ()

    def remembering(self, earlier: Evidence) -> Evidence:
        """Return it with what `earlier` knew of trust that is lost since."""
        once = {bundle.text: bundle.trusted_by for bundle in earlier.bundles}
        bundles = (replace(b, trusted_by=b.trusted_by or once.get(b.text, "")) for b in self.bundles)
        return replace(self, bundles=tuple(bundles))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evidence:
        """Read what `to_json` returns.

        Raises:
            ValueError: it has another form.
        """
        try:
            bundles = tuple(Bundle(**each) for each in value["bundles"])
            return cls(bundles, tuple(Root(**each) for each in value["roots"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"evidence: has another form ({error})") from error


def least(verdicts: Sequence[Verdict | None]) -> Verdict:
    """Return the weakest of verdicts, of which there is at least one."""
    order = list(SignatureState)
    return min((v for v in verdicts if v), key=lambda verdict: order.index(verdict.state))
