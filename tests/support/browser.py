"""A headless Chromium for the page: what it complains of fails a test, and axe looks for barriers."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Response,
    ViewportSize,
    async_playwright,
    expect,
)

from tests.tools import axe, chromium

WAIT_MS: Final = 10_000
DESKTOP: Final = ViewportSize(width=1280, height=800)
PHONE: Final = ViewportSize(width=360, height=740)

_ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--font-render-hinting=none")
"""Tests run in containers: without user namespaces, GPU, or much shared memory."""

_ASKED: Final = "failed to load resource"
"""What the console says of each answer that is no 2xx: the page says so itself."""


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A Chromium of one's own."""
    expect.set_options(timeout=WAIT_MS)
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=str(chromium.path), env={**chromium.environment}, args=list(_ARGUMENTS)
        )
        try:
            yield launched
        finally:
            await launched.close()


@asynccontextmanager
async def page_in(launched: Browser, **options: Any) -> AsyncIterator[Page]:
    """A page in a profile of its own, whose waits are bounded; `options` are those of a context."""
    settings: Mapping[str, Any] = {"viewport": DESKTOP, "locale": "en-GB", "timezone_id": "Europe/Berlin", **options}
    context: BrowserContext = await launched.new_context(**settings)
    context.set_default_timeout(WAIT_MS)
    try:
        yield await context.new_page()
    finally:
        await context.close()


@contextmanager
def complaints(page: Page) -> Iterator[list[str]]:
    """What the browser complains of: errors nobody caught, the console's errors and warnings, breaches of the CSP."""
    found: list[str] = []

    def told(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and _ASKED not in message.text.lower():
            found.append(f"{message.type}: {message.text}")

    def answered(response: Response) -> None:
        if response.status >= 500:
            found.append(f"{response.status}: {response.url}")

    page.on("console", told)
    page.on("pageerror", lambda error: found.append(f"uncaught: {error}"))
    page.on("response", answered)
    yield found


async def barriers(page: Page) -> list[str]:
    """What axe finds in the way of people, by its rules for WCAG 2.2 AA and good practice: one line a rule."""
    await page.add_script_tag(path=Path(axe))
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {each['help']}: {', '.join(' '.join(map(str, node['target'])) for node in each['nodes'][:5])}"
        for each in found["violations"]
    ]


async def overflows(page: Page) -> list[str]:
    """The elements that stand out of the page sideways; nothing where the page need not be scrolled that way."""
    found: list[str] = await page.evaluate(
        """() => {
          const root = document.documentElement;
          if (root.scrollWidth <= root.clientWidth) return [];
          return [...document.querySelectorAll("body *")]
            .filter((each) => each.getBoundingClientRect().right > root.clientWidth + 1)
            .map((each) => `${each.tagName}.${each.getAttribute("class")}`).slice(0, 10);
        }"""
    )
    return found
