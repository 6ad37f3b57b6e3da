"""Who answers at a URL: a POST as a webhook's, without a signature, so that no receiver takes it for an event."""

import asyncio
import ssl
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import aiohttp

from service.adapters.certificates import der_expires
from service.ports import ProbeAnswer

if TYPE_CHECKING:
    from aiohttp.connector import Connection

TIMEOUT_SECONDS: Final = 5.0
BODY_BYTES_MAX: Final = 4096
"""A receiver's refusal is far shorter."""

_BODY: Final = b"{}"
_HEADERS: Final = {
    "Accept": "*/*; q=0.5, application/xml",
    "Accept-Encoding": "identity",
    "Cache-Control": "no-cache",
    "Content-Type": "application/json; charset=utf-8",
    "User-Agent": "stripe-ingest (looks whether its receiver answers here)",
}


class _Response(aiohttp.ClientResponse):
    """A response that knows its server's certificate: its connection is gone once the body is there."""

    certificate_ends: datetime | None = None

    async def start(self, connection: "Connection") -> aiohttp.ClientResponse:
        if connection.transport is not None:
            self.certificate_ends = _shown(connection.transport.get_extra_info("ssl_object"))
        return await super().start(connection)


class HttpUrlProbe:
    """`UrlProbe` over HTTP. Calls may run beside each other. To be made while the event loop runs.

    Servers' certificates are verified by `tls`, else against the system's authorities.
    """

    def __init__(self, *, timeout_seconds: float = TIMEOUT_SECONDS, tls: ssl.SSLContext | None = None) -> None:
        self._timeout_seconds = timeout_seconds
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, ssl=tls or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,  # HTTPS_PROXY, where the way to the outside is one
            auto_decompress=False,  # somebody else's server may answer whatever it likes
            timeout=aiohttp.ClientTimeout(total=None),  # it is bounded as a whole, below
            response_class=_Response,
        )

    async def ask(self, url: str) -> ProbeAnswer:
        """See `UrlProbe.ask`."""
        answer = ProbeAnswer(None, why=f"nothing within {self._timeout_seconds:g} s")
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._session.post(url, data=_BODY, headers=_HEADERS, allow_redirects=False) as response,
            ):
                # A redirect's body says nothing, and of a body that never ends the status is known all the same.
                ends = response.certificate_ends if isinstance(response, _Response) else None
                answer = ProbeAnswer(response.status, location=response.headers.get("Location"), certificate_ends=ends)
                if response.status // 100 != 3:
                    answer = ProbeAnswer(response.status, await _beginning(response.content), certificate_ends=ends)
        except TimeoutError:
            return answer
        except aiohttp.ClientConnectorCertificateError as refused:
            return ProbeAnswer(None, why=_why(refused), certificate_ends=await self._refused_certificate(url))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return answer if answer.status is not None else ProbeAnswer(None, why=_why(error))
        return answer

    async def _refused_certificate(self, url: str) -> datetime | None:
        """When it expires, or has expired, which is the likeliest reason; nothing is sent to who has shown it."""
        # Not the default one: it reads all of the system's authorities, in the event loop, and none is asked.
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        with suppress(OSError, ValueError, TimeoutError):
            where = urlsplit(url)
            async with asyncio.timeout(self._timeout_seconds):
                _, writer = await asyncio.open_connection(where.hostname, where.port or 443, ssl=unverified)
            try:
                return _shown(writer.get_extra_info("ssl_object"))
            finally:
                writer.transport.abort()
        return None

    async def close(self) -> None:
        """See `UrlProbe.close`."""
        await self._session.close()


def _shown(tls: ssl.SSLObject | None) -> datetime | None:
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    if certificate is None:
        return None
    try:
        return der_expires(certificate)
    except ValueError:
        return None  # somebody else's server may show whatever it likes


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    body = b""
    while len(body) < BODY_BYTES_MAX and (more := await content.read(BODY_BYTES_MAX - len(body))):
        body += more
    return body


def _why(error: Exception) -> str:
    """In a few words, without the URL, which may have a password in it."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "no such host"
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as refused):
            return f"its certificate is refused: {refused.verify_message}"
        case aiohttp.ClientConnectorSSLError():
            return "no TLS"
        case aiohttp.ClientConnectorError():
            return "no connection"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed"
        case _:
            return type(error).__name__
