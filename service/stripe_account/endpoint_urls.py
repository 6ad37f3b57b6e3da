"""Which URLs Stripe can deliver to, by what they say: nothing is looked up, and nothing is asked."""

import ipaddress
import re
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

LISTEN: Final = "for a receiver on this machine, `stripe listen --forward-to` brings the events of test mode"
URL_CHARACTERS_MAX: Final = 2000

_LOCAL_NAMES: Final = (
    "localhost", "local", "internal", "test", "invalid", "example", "onion", "home.arpa", "lan", "home", "corp",
    "localdomain", "intranet", "private",
)  # fmt: skip
"""Endings that no public name has: reserved by RFC 2606, 6761, 6762, 7686, 8375 and ICANN, or used as if they were."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def why_unreachable(url: str, *, livemode: bool) -> str | None:
    """Why Stripe cannot deliver there, to follow the URL's name: "must …" or "is …"; None where it may well."""
    if not url.isprintable() or " " in url or len(url) > URL_CHARACTERS_MAX:
        return f"must be a URL without blanks and of {URL_CHARACTERS_MAX} characters at most"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is no URL: its host or its port cannot be read"
    if parts.scheme not in _DEFAULT_PORTS or not url.lower().startswith(f"{parts.scheme}://"):
        return "must begin with https://" + ("" if livemode else " (or http:// in test mode)")
    host = (parts.hostname or "").removesuffix(".")
    if not host:
        return "has no host: it must be https://host/path"
    if livemode and parts.scheme == "http":
        return "must begin with https://: in live mode Stripe delivers to no other"
    return _why_host_unreachable(host)


def same_url(one: str, other: str) -> bool:
    """Whether the two are one address, however they spell scheme, host and port."""
    return _canonical(one) == _canonical(other)


def is_below(url: str, base: str) -> bool:
    """Whether a URL is of the same scheme, host and port as another one, and its path within that one's."""
    one, other = _canonical(url), _canonical(base)
    if isinstance(one, str) or isinstance(other, str):
        return False
    within = one.path.startswith(f"{other.path.rstrip('/')}/")
    return within and (one.scheme, one.netloc) == (other.scheme, other.netloc)


def shown(url: str) -> str:
    """The URL for people, without the password that it may carry."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no URL)"
    if parts.username is None and parts.password is None:
        return url
    return parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}").geturl()


def _why_host_unreachable(host: str) -> str | None:
    address = _address(host)
    if address is not None:
        if address.is_loopback or address.is_unspecified:
            return f"is on this machine ({host}), where Stripe cannot reach it: {LISTEN}"
        if not _is_public(address):
            return f"is at a private or reserved address ({host}), which Stripe cannot reach"
        return None
    if host == "localhost" or host.endswith(".localhost"):
        return f"is on this machine ({host}), where Stripe cannot reach it: {LISTEN}"
    last = host.rpartition(".")[2]
    if _NUMBER.fullmatch(last):
        return f"has an address in an unusual form ({host}): four decimal numbers with dots between, or a name"
    if "." not in host:
        return f"has a name without a dot ({host}), which is known in your own network only"
    for ending in _LOCAL_NAMES:
        if host.endswith(f".{ending}"):
            return f"has a name that ends in .{ending} ({host}), which is known in your own network only"
    return None


def _address(host: str) -> IPAddress | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _is_public(address: IPAddress) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved


def _canonical(url: str) -> SplitResult | str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url
    host = (parts.hostname or "").removesuffix(".")
    user = parts.netloc.rpartition("@")[0]
    if port == _DEFAULT_PORTS.get(parts.scheme):
        port = None
    return parts._replace(netloc=f"{user}@{host}:{port}", path=parts.path or "/")
