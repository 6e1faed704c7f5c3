"""One attempt to deliver: a CloudEvent as JSON, signed, within a time, to an address that may be called."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from modelyard_governance.webhooks.models import Job, Outcome
from modelyard_governance.webhooks.secrets import Sealer, signature
from modelyard_governance.webhooks.targets import check_url, checked_sockets
from modelyard_kit.errors import InvalidField

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
_ERROR_LENGTH = 255
_NOT_OF_THE_EVENT = (408, 425, 429)
"""Client errors that say something of the moment, and not of the event."""
_GONE = 410


def cloud_event(canonical_event: str, sequence: int, source: str) -> bytes:
    """Return an event of the audit chain as a CloudEvent 1.0 in structured JSON; the same bytes for every attempt."""
    event: dict[str, Any] = json.loads(canonical_event)
    document = {
        "specversion": "1.0",
        "id": event["id"],
        "source": source,
        "type": f"modelyard.{event['type']}",
        "subject": event["resource"]["name"] or event["resource"]["id"],
        "time": event["time"],
        "datacontenttype": "application/json",
        "sequence": str(sequence),
        "data": event,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


class Sender:
    """Makes attempts.

    Args:
        sealer: opens secrets.
        clock: tells the time that is signed.
        source: what CloudEvents say they come from.
        timeout: seconds for one attempt as a whole.
        allow_private: whether addresses inside may be called.
    """

    def __init__(
        self,
        *,
        sealer: Sealer,
        clock: Callable[[], datetime],
        source: str,
        timeout: float,
        allow_private: bool,
    ) -> None:
        self._sealer = sealer
        self._clock = clock
        self._source = source
        self._timeout = timeout
        self._allow_private = allow_private

    async def send(self, job: Job) -> Outcome:
        """Make one attempt. What goes wrong outside is an outcome, never an error."""
        if job.canonical_event is None:
            return Outcome(delivered=False, error="retention has dropped the event")
        now = self._clock()
        counting = [each.sealed for each in job.earlier_secrets if each.until > now]
        current, *earlier = map(self._sealer.open, (job.sealed_secret, *counting))
        if current is None:
            error = (
                "the secret was sealed with a key that is not in the key file; rotate it, or put the key back"
            )
            return Outcome(delivered=False, error=error, unreachable=True)
        body = cloud_event(job.canonical_event, job.sequence, self._source)
        message_id, timestamp = json.loads(body)["id"], int(now.timestamp())
        secrets = [current, *(each for each in earlier if each is not None)]
        headers = {
            "content-type": CONTENT_TYPE,
            "user-agent": "modelyard",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            # Receivers take a request that one of the signatures fits.
            "webhook-signature": " ".join(signature(each, message_id, timestamp, body) for each in secrets),
        }
        import aiohttp  # here, as below: it takes long, and a service may have no webhook

        try:
            async with asyncio.timeout(self._timeout):
                return _outcome(await self._post(job.url, body, headers))
        except TimeoutError:
            error = f"no answer within {self._timeout:g} s"
        except (aiohttp.ClientError, OSError, InvalidField, UnicodeError) as refused:
            error = str(refused)[:_ERROR_LENGTH] or type(refused).__name__
        return Outcome(delivered=False, error=error, unreachable=True)

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """Send and return the status. Each attempt has a connection of its own; of the answer nothing but its head is read."""
        import aiohttp

        check_url(url, allow_private=self._allow_private)  # the setting may be another one since it was made
        sockets = checked_sockets(allow_private=self._allow_private)
        connector = aiohttp.TCPConnector(socket_factory=sockets, use_dns_cache=False, force_close=True)
        async with (
            aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            ) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            return answer.status


def _outcome(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome(delivered=True, status_code=status)
    moved = " (redirects are not followed: change the address)" if 300 <= status < 400 else ""
    return Outcome(
        delivered=False,
        status_code=status,
        error=f"the receiver answered {status}{moved}",
        unreachable=status >= 500 or status in _NOT_OF_THE_EVENT,
        gone=status == _GONE,
    )
