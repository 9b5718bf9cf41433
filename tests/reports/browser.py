"""A real browser for the tests of this folder, or the reason why there is none."""

from __future__ import annotations

import shutil

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--disable-quic", "--autoplay-policy=no-user-gesture-required"]
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: chromium)")
