"""Opens HTML pages in a real browser, without its window."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SWITCHES = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom")


def open_page(path, script=""):
    """Returns the document of a page after its scripts have run, and what the browser complained about.

    `script`: JavaScript that runs in the page after its own scripts.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(
            path.read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8"
        )
        command = [BROWSER, *SWITCHES, f"--user-data-dir={folder}/profile", copy.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)
