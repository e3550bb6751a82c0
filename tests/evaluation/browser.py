"""Chromium for tests that look at pages; they are skipped where it or its driver is missing."""

import shutil
from contextlib import contextmanager

import pytest


@contextmanager
def offline_page(**options):
    """A page of a headless Chromium without a network; a request that is no file fails the test."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs a browser driver: pip install playwright")
    if not (binary := shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")):
        pytest.skip("needs Chromium: apt-get install chromium")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        context = browser.new_context(offline=True, **options)
        page = context.new_page()
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: wrong.append(request.url) if _remote(request.url) else None)
        yield page
        browser.close()
        assert wrong == []


def _remote(url):
    return not url.startswith(("file:", "data:", "blob:"))
