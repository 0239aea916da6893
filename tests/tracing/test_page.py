"""The page in a browser: what one sees at a look, by the keyboard alone, and as a checker reads it.

Skipped where there is no Chromium or no playwright; `make page-test` has both installed.
"""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.tracing.store import SpanStore
from tests.tracing.recorded_requests import record_request
from tests.tracing.tracing_client import Client

CHROMIUM = shutil.which("chromium")
AXE = Path(__file__).parents[2] / "build/page/node_modules/axe-core/axe.min.js"
WELL, HUNG, FAILED, CANCELLED = (digit * 32 for digit in "1234")

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.page,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here"),
]


@dataclass
class Page:
    """A page of one tracing service, and what its console said."""

    url: str
    page: Any
    said: list[str] = field(default_factory=list)

    async def open(self, path: str, until: str) -> None:
        """Go there, and wait for the text."""
        await self.page.goto("about:blank")
        await self.page.goto(f"{self.url}/{path}")
        await self.page.get_by_text(until).first.wait_for()

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.page.keyboard.press(key)

    async def current(self) -> str:
        """The text of the row that the keyboard is at."""
        return str(
            await self.page.evaluate(
                "document.getElementById(document.activeElement"
                ".getAttribute('aria-activedescendant')).innerText"
            )
        )

    async def text(self, selector: str) -> str:
        return str(await self.page.locator(selector).first.inner_text())


def fill(store: SpanStore) -> None:
    record_request(store, WELL)
    record_request(store, HUNG, hangs=True)
    record_request(store, FAILED, error=("DEADLINE_EXCEEDED", "it took longer than 0.30 s"))
    record_request(store, CANCELLED, error=("CANCELLED", "the client left"))


@asynccontextmanager
async def opened(
    client: Client, *, width: int = 1440, scheme: str = "light"
) -> AsyncIterator[Page]:
    # A root in a container has no sandbox; the page is our own.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with playwright.async_playwright() as started:
        browser = await started.chromium.launch(executable_path=CHROMIUM, args=flags)
        context = await browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        page = Page(client.url, await context.new_page())
        page.page.on("console", lambda message: page.said.append(message.text))
        page.page.on("pageerror", lambda error: page.said.append(str(error)))
        yield page
        await browser.close()
    assert page.said == []


async def test_a_trace_is_answered_in_words_and_the_keyboard_reaches_all_of_it(
    client: Client,
) -> None:
    fill(client.running.store)
    sentence = (
        "layer 2 of step 5: expert-0 did not answer for 200.00 ms of 202.30 ms, expert-1 did it"
    )
    async with opened(client) as page:
        await page.open(f"#/trace/{HUNG}", sentence)
        assert "router.expert failed" in await page.text(".failure")
        assert "expert-0 cost most: 200.00 ms" in await page.text(".verdict")
        assert "Layer 2, on its own scale" in await page.text(".zoomed h2")
        assert await page.text(".heat .very") == "200.00 ms"
        tree = page.page.get_by_role("tree", name="all spans")
        await tree.focus()
        assert "gateway.generate" in await page.current()
        await page.press("ArrowDown", "ArrowRight", "ArrowRight")
        assert "router.layer" in await page.current()
        await page.press("ArrowLeft", "ArrowLeft")
        assert "router.step" in await page.current()
        await page.press("End")
        last = await page.current()
        await page.press("PageUp", "Home", "Enter")
        assert "gateway.generate" in await page.text("#details")
        await page.press("z", "Escape")
        assert not await page.page.locator("#details").is_visible()
        await page.press("End")
        assert await page.current() == last
        await page.press("z")
        assert await page.page.get_by_text("whole trace").is_enabled()
        await page.press("Escape")
        assert await page.page.get_by_text("whole trace").is_disabled()
        await page.press("?")
        assert await page.page.locator("#keys").is_visible()
        await page.press("Escape", "/")
        await page.page.get_by_label("attributes").wait_for()
        await page.open(f"#/trace/{CANCELLED}", "gateway.generate was cancelled")
        assert "cancelled" in str(await page.page.locator(".failure").get_attribute("class"))
        await page.open(f"#/trace/{FAILED}", "DEADLINE_EXCEEDED: it took longer than 0.30 s")


async def test_a_list_tells_requests_apart_and_a_search_says_beside_its_field_what_it_cannot_read(
    client: Client,
) -> None:
    async with opened(client, width=800, scheme="dark") as page:
        await page.open("", "No trace has come yet")
        fill(client.running.store)
        await page.open("#/search", "DEADLINE_EXCEEDED")
        row = await page.text(f"a[href='#/trace/{HUNG}']")
        for told in ("4 → 8 tokens", "first after 9.00 ms", "communication", "straggler expert-0"):
            assert told in row
        await page.page.get_by_label("attributes").fill("nonsense")
        await page.page.get_by_label("at least").fill("oops")
        await page.press("Enter")
        assert "“nonsense” is not KEY=VALUE" in await page.text("#attributes-problem")
        assert "“oops” is no duration" in await page.text("#minDuration-problem")
        assert await page.page.get_by_label("at least").input_value() == "oops"
        await page.open("#/search?minDuration=1h", "none of this time is like that")
        await page.open("#/search?live=1", "refresh live")
        record_request(client.running.store, "5" * 32)
        await page.page.locator(f"a[href='#/trace/{'5' * 32}']").wait_for()
        await page.open("#/dependencies", "Who calls whom")
        await page.page.locator("svg").get_by_text("p50").first.wait_for()


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed")
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (800, "dark")])
async def test_no_view_breaks_a_rule_of_accessibility_or_scrolls_sideways(
    client: Client, width: int, scheme: str
) -> None:
    fill(client.running.store)
    views = {
        "#/search?attributes=nonsense": "KEY=VALUE",
        "#/search": "straggler expert-0",
        f"#/trace/{HUNG}": "Verdict",
        f"#/trace/{HUNG}?span={9:016x}": "begins after",
        "#/dependencies": "p50",
        "#/trace/ffff": "trace not found",
    }
    rules = AXE.read_text(encoding="utf-8")
    async with opened(client, width=width, scheme=scheme) as page:
        for path, until in views.items():
            await page.open(path, until)
            await page.page.evaluate(rules)
            found = await page.page.evaluate("axe.run()")
            broken = [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]]
            assert broken == [], path
            beyond = "document.documentElement.scrollWidth - innerWidth"
            assert await page.page.evaluate(beyond) <= 0, path
            page.said = [one for one in page.said if "404" not in one]
