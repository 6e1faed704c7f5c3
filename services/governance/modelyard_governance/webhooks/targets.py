"""Which addresses may be called: never one inside, unless the installation allows it.

What counts is the address that a connection is about to be made to, however its name was written or resolved: each socket is made here,
for an address that was checked. So a name that means something else a moment later gains nothing. Redirects are not followed at all.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from yarl import URL

from modelyard_kit.errors import InvalidField

FIELD = "webhook.url"
URL_LENGTH = 2_048
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
_NAT64 = IPv6Network("64:ff9b::/96")


class Forbidden(OSError):
    """The target is an address that may not be called."""


def is_public(text: str) -> bool:
    """Return whether an address is one of the internet, by itself and by the IPv4 address that may hide in it."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        hidden = _hidden(address)
        if hidden is not None:
            return is_public(str(hidden))
    return address.is_global and not address.is_multicast


def _hidden(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def check_url(url: str, *, allow_private: bool) -> str:
    """Return a URL that may be a target, as far as it can be told without asking the network.

    Raises:
        InvalidField: it may not.
    """
    if len(url) > URL_LENGTH:
        raise InvalidField(FIELD, f"has {len(url)} characters; {URL_LENGTH} are the most")
    if any(not "!" <= sign <= "~" or sign == "\\" for sign in url):
        raise InvalidField(FIELD, "must be written in ASCII, without spaces; international names as xn--…")
    try:
        parts = URL(url)  # as the one who calls it reads it
        host, _ = parts.raw_host or "", parts.port
    except ValueError as error:
        raise InvalidField(FIELD, f"is no address: {error}") from error
    schemes = ("https", "http") if allow_private else ("https",)
    if parts.scheme not in schemes or not _HOST.fullmatch(host):
        raise InvalidField(
            FIELD, f"must be an address that begins with {' or '.join(f'{each}://' for each in schemes)}"
        )
    if parts.user is not None or parts.password is not None or parts.fragment:
        raise InvalidField(FIELD, "must have neither a user nor a fragment: the signature tells who sends")
    if not allow_private and _is_inside(host):
        raise InvalidField(
            FIELD,
            f"{host} is inside; only an installation with MODELYARD_WEBHOOK_PRIVATE_TARGETS may call it",
        )
    return url


def _is_inside(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not is_public(host)
    except ValueError:
        return False  # a name; what it means is checked at each connection


def checked_sockets(*, allow_private: bool) -> Callable[[Any], socket.socket]:
    """Return what makes the sockets of connections, from an entry of `getaddrinfo`; it raises Forbidden."""

    def make(entry: Any) -> socket.socket:
        family, kind, protocol, _, address = entry
        if not allow_private and not is_public(str(address[0])):
            raise Forbidden(errno.EACCES, f"{address[0]} is inside, and may not be called")
        return socket.socket(family, kind, protocol)

    return make
