"""Runs modules in forks of one process that has their imports already. Reads a JSON line for each call, and answers with the process id."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import sys
import threading
import traceback
import typing as t

COLLECTION = "ansible_collections.screwdriver.kata.plugins.modules"
PRELOADED = ("ansible_collections.kubernetes.core.plugins.module_utils.k8s.client", "kubernetes", "kubernetes.dynamic")


def preload() -> None:
    """Imports every module of the collection; a library that is missing fails in the call that needs it."""
    package = importlib.import_module(COLLECTION)
    for name in (*PRELOADED, *(f"{COLLECTION}.{module.name}" for module in pkgutil.iter_modules(package.__path__))):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def become(call: dict[str, t.Any]) -> t.NoReturn:
    """Makes this process the one that the call would have started."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, (key, flags) in enumerate((("in", os.O_RDONLY), ("out", os.O_WRONLY), ("err", os.O_WRONLY))):
        os.dup2(os.open(call[key], flags), number)
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.argv = [call["module"]]
    sys.modules.pop(f"{COLLECTION}.{call['module']}", None)
    try:
        runpy.run_module(f"{COLLECTION}.{call['module']}", run_name="__main__", alter_sys=True)
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc()
    # Ends as Python does, but does not free the objects of all imports, which takes longer than most calls.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    preload()
    # Pages that the collector does not touch stay shared with the forks.
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        call = json.loads(line)
        pid = os.fork()
        if not pid:
            become(call)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
