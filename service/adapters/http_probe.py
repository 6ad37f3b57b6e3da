"""Who answers at a URL: a POST as a webhook's, without a signature, so that no receiver takes it for an event."""

import asyncio
import ssl
from typing import Final

import aiohttp

from service.ports import ProbeAnswer

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


class HttpUrlProbe:
    """`UrlProbe` over HTTP. Calls may run beside each other. To be made while the event loop runs."""

    def __init__(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,  # HTTPS_PROXY, where the way to the outside is one
            auto_decompress=False,  # somebody else's server may answer whatever it likes
            timeout=aiohttp.ClientTimeout(total=None),  # it is bounded as a whole, below
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
                answer = ProbeAnswer(response.status, location=response.headers.get("Location"))
                if response.status // 100 != 3:
                    answer = ProbeAnswer(response.status, await _beginning(response.content))
        except TimeoutError:
            return answer
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return answer if answer.status is not None else ProbeAnswer(None, why=_why(error))
        return answer

    async def close(self) -> None:
        """See `UrlProbe.close`."""
        await self._session.close()


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
