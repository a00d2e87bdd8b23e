"""What ansible-test runs to get pip into an environment: Python's own copy of pip, which then installs the releases that are asked for."""

from __future__ import annotations

import subprocess
import sys

# A process of its own, since ensurepip hides pip's settings from the process that it runs in.
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
arguments = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", *arguments], check=False).returncode)
