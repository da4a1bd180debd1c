"""A browser that is there already, for tests of pages; they are skipped where there is none."""

import contextlib
import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # drawn without a GPU


@contextlib.contextmanager
def browser(*arguments):
    """Chromium, driven by playwright."""
    if CHROMIUM is None:
        pytest.skip("no chromium here to show the page")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])
        yield chromium
        chromium.close()
