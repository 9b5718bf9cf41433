"""Provide a real browser for the tests of this folder, and a skip marker if there is none."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--disable-quic", "--autoplay-policy=no-user-gesture-required"]
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: chromium)")


def faults(tab: Any) -> list[str]:
    """Return what axe-core reports as serious or critical on the page in a tab, with everything unfolded."""
    from axe_playwright_python.sync_playwright import Axe

    tab.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    violations = Axe().run(tab).response["violations"]
    return [
        f"{violation['id']}: {violation['nodes'][0]['html']}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]
