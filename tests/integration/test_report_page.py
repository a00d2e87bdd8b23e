"""The report of a rollout in a real browser: light, dark, on a phone and in print, without a console error."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ..unit.roles.test_rollout_templates import record, render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
DARK = "--blink-settings=preferredColorScheme=0"


def browse(page: Path, output: str, *options: str) -> bytes:
    """What the browser wrote to ``output``, once it has shown the page and logged nothing."""
    path = page.with_name(output)
    to = f"--print-to-pdf={path}" if output.endswith(".pdf") else f"--screenshot={path}"
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *options, to, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "CONSOLE" not in done.stderr, done.stderr
    return path.read_bytes()


def test_the_report_is_shown_everywhere(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render("report.html.j2", __rollout_record={"rollout": record("finished")}))
    light = browse(page, "light.png", "--window-size=1100,1400")
    dark = browse(page, "dark.png", "--window-size=1100,1400", DARK)
    phone = browse(page, "phone.png", "--window-size=390,844")
    assert all(picture.startswith(b"\x89PNG") for picture in (light, dark, phone))
    assert light != dark, "the page does not follow the color scheme"
    assert browse(page, "print.pdf").startswith(b"%PDF")
