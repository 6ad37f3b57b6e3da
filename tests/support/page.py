"""The operator's page of a receiver in this process, asked as somebody's browser would."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from msgspec.structs import replace

from service.config import AdminConfig
from service.events import Secret
from tests.support.deployment import Deployment
from tests.support.waiting import free_port

TOKEN = "an-admin-token-of-thirty-two-chars"


@dataclass(frozen=True)
class Answer:
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    """Their names in lower case."""
    body: bytes = field(repr=False)
    document: Any

    @property
    def error(self) -> str | None:
        return self.document["error"] if isinstance(self.document, dict) and "error" in self.document else None


@dataclass(frozen=True)
class Browser:
    """Asks one page; keeps its cookies."""

    url: str
    session: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, *, json: Any = None, headers: Mapping[str, str] | None = None, **query: Any
    ) -> Answer:
        async with self.session.request(
            method, f"{self.url}{path}", json=json, headers=headers, params={k: str(v) for k, v in query.items()}
        ) as response:
            body = await response.read()
            is_json = response.content_type == "application/json"
            return Answer(
                response.status,
                {k.lower(): v for k, v in response.headers.items()},
                body,
                await response.json() if is_json else None,
            )

    async def get(self, path: str, **query: Any) -> Any:
        """The document there; the test fails where it is an error."""
        answer = await self.ask("GET", path, **query)
        assert answer.status == 200, (path, answer.status, answer.document)
        return answer.document

    async def sign_in(self, token: str = TOKEN) -> Mapping[str, str]:
        """Begin a session; the headers that a change needs from then on."""
        answer = await self.ask("POST", "/api/session", json={"token": token})
        assert answer.status == 204, answer.document
        return {"X-CSRF-Token": (await self.get("/api/session"))["csrf"]}


def with_page(deployed: Deployment, *, token: str | None = TOKEN) -> Deployment:
    """The deployment, its admin side at a port that is known."""
    admin = AdminConfig(port=free_port(), token=Secret(token) if token is not None else None)
    return Deployment(replace(deployed.config, admin=admin))


@asynccontextmanager
async def browsing(url: str) -> AsyncIterator[Browser]:
    """A browser of its own, whose cookies are for addresses too."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield Browser(url, session)


@asynccontextmanager
async def page_of(deployed: Deployment) -> AsyncIterator[Browser]:
    """A browser at the page of a receiver that runs already."""
    async with browsing(f"http://127.0.0.1:{deployed.config.admin.port}") as browser:
        yield browser
