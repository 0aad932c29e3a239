"""Pages in a real browser without a window."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any


def measured(browser: str, page: str, folder: Path) -> Any:
    """What a page that measures itself leaves in its element `out`."""
    probe = folder / "probe.html"
    probe.write_text(page, "utf-8")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-dev-shm-usage",  # it dies where that is small, as in most containers
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1400,1000",
        "--virtual-time-budget=4000",
        "--dump-dom",
        probe.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    match = re.search(r"<pre id=\"out\">(.*?)</pre>", done.stdout, re.DOTALL)
    assert match, done.stdout[-500:]
    return json.loads(html.unescape(match[1]))
