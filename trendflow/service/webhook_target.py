"""Where a webhook may go: HTTPS to a public address, found once and checked before anything is sent."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from trendflow.contracts.errors import TrendFlowError

_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
_HTTPS = 443
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

Resolver = Callable[[str, int], Sequence[str]]
"""Addresses of a name; raises OSError, or UnicodeError for what cannot be a name."""


@dataclass(frozen=True)
class Target:
    """A callback URL in its parts; `host` in ASCII, `path` with the query."""

    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _HTTPS else f"{host}:{self.port}"


def parse_target(url: str) -> Target:
    """Raises `input_constraint_violated` for anything but an https URL without credentials and fragment.

    An address that is written out is checked at once, a name when it is used. Names of other scripts become their IDNA
    form (RFC 3490), which headers and resolvers take; one that has no such form is refused.
    """
    try:
        url.encode()  # refuses lone surrogates
        parts = urlsplit(url)
        port = parts.port or _HTTPS
        host = (parts.hostname or "").encode("idna").decode("ascii")  # refuses empty and overlong labels, too
    except ValueError:  # UnicodeError is one
        raise _refused("The callback URL cannot be read.") from None
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in url) or "\\" in url:
        raise _refused("The callback URL holds characters that no URL has.")
    if parts.scheme != "https" or not host or "@" in parts.netloc or parts.fragment:
        raise _refused("A callback URL is https://name/path, without credentials and fragment.")
    literal = _address(host)
    if literal is not None and not is_public(literal):
        raise _refused("The callback URL names an address that is not public.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(host, port, path)


def resolve(host: str, port: int) -> Sequence[str]:
    """Addresses of a name, as the system finds them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def public_address(target: Target, resolver: Resolver = resolve) -> str:
    """The address to connect to, and to no other.

    Raises `input_constraint_violated` when any address of the name is not public: a name that is both public and
    private serves nobody honest. `network_error` when there is none.
    """
    try:
        texts = resolver(target.host, target.port)
    except (OSError, UnicodeError) as exc:
        raise TrendFlowError(
            "network_error", "The name of the callback is not known.", type=type(exc).__name__
        ) from exc
    addresses = [_address(text) for text in texts]
    if not addresses:
        raise TrendFlowError("network_error", "The name of the callback has no address.")
    if any(address is None or not is_public(address) for address in addresses):
        raise _refused("The name of the callback leads to an address that is not public.")
    return str(addresses[0])


def is_public(address: Address) -> bool:
    """Whether the address belongs to the public internet, looking into those that wrap another one."""
    if address.is_multicast or not address.is_global:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    if address.is_site_local:
        return False
    teredo = address.teredo
    inside = [address.ipv4_mapped, address.sixtofour, *(teredo or ())]
    if any(address in network for network in _NAT64):
        inside.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if int(address) >> 32 == 0:  # IPv4-compatible, long out of use
        return False
    return all(wrapped is None or is_public(wrapped) for wrapped in inside)


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _refused(message: str) -> TrendFlowError:
    return TrendFlowError("input_constraint_violated", message, field="callback_url")
