"""Where the lab keeps things; nothing of it is in the checkout."""

from __future__ import annotations

import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("KATA_CACHE") or Path.home() / ".cache" / "screwdriver.kata")
BINARIES = CACHE / "bin"
LABS = CACHE / "labs"
