"""What stands in front of a receiver and ends TLS: an address of its own, with a certificate that can be exchanged."""

import ipaddress
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

import orjson
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

AUTHORITY: Final = "authority.pem"
"""Who signs the certificates; the processes of a world trust nobody else."""
YEAR: Final = timedelta(days=365)
_ADDRESS: Final = ipaddress.ip_address("127.0.0.1")


@dataclass
class Front:
    """It answers as a receiver does to what nobody has signed."""

    url: str
    folder: Path
    _key: ec.EllipticCurvePrivateKey
    _tls: ssl.SSLContext

    @classmethod
    async def opened(cls, exits: AsyncExitStack, folder: Path) -> Self:
        """Open one; its certificate is good for a year."""
        front = cls("", folder, ec.generate_private_key(ec.SECP256R1()), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        (folder / AUTHORITY).write_bytes(front._made(datetime.now(UTC) + YEAR, authority=True))
        front.certify(datetime.now(UTC) + YEAR)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", _refuse)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        exits.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, str(_ADDRESS), 0, ssl_context=front._tls).start()
        front.url = f"https://{_ADDRESS}:{runner.addresses[0][1]}"
        return front

    def certify(self, not_after: datetime) -> None:
        """From the next connection on, show a certificate that ends then."""
        file = self.folder / "front.pem"
        key = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(self._made(not_after, authority=False) + key)
        self._tls.load_cert_chain(file)

    def _made(self, not_after: datetime, *, authority: bool) -> bytes:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority" if authority else str(_ADDRESS))])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(days=1))
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(_ADDRESS)]), critical=False)
            .sign(self._key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )


async def _refuse(_: web.Request) -> web.Response:
    body = orjson.dumps({"error": "signature_missing", "detail": "there is no Stripe-Signature header"})
    return web.Response(status=400, body=body, content_type="application/json")
