"""Runs Python programs in forks of one process that has imported what Ansible's modules need, which saves most of their time.

Ansible uses it through fork_client.py as ansible_python_interpreter, ModuleRunner through helpers.py.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import gc
import importlib
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import typing as t

COLLECTION = "ansible_collections.screwdriver.kata.plugins.modules"
CORE = "ansible_collections.kubernetes.core.plugins"
PRELOADED = (
    "ansible.module_utils.basic",
    "ansible.module_utils._internal._ansiballz._loader",
    "kubernetes",
    "kubernetes.dynamic",
    "tempfile",
    f"{CORE}.modules.k8s",
    f"{CORE}.modules.k8s_info",
)


def preload() -> None:
    """Imports every module of the collection; a library that is missing fails in the call that needs it."""
    package = importlib.import_module(COLLECTION)
    for name in (*PRELOADED, *(f"{COLLECTION}.{module.name}" for module in pkgutil.iter_modules(package.__path__))):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # Each is run as __main__, which has to find it new.
    for name in [name for name in sys.modules if ".plugins.modules." in name]:
        del sys.modules[name]


def run(arguments: list[str]) -> int:
    """Does what `python ARGUMENTS` does with a module (-m), a file, or a program on standard input; returns the exit code."""
    try:
        if arguments[:1] == ["-m"]:
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif arguments:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            sys.argv = [""]
            exec(compile(sys.stdin.buffer.read(), "<stdin>", "exec"), sys.modules["__main__"].__dict__)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def become(connection: socket.socket) -> t.NoReturn:
    """Makes this process the one that the client would have started, and reports its process id and its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, descriptors, _flags, _address = socket.recv_fds(connection, 1 << 20, 3)
    arguments, directory, environment = ast.literal_eval(message.decode())
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(directory)
    os.environ.clear()
    os.environb.update(environment)
    connection.send(str(os.getpid()).encode())
    code = run(arguments)
    # Ends as Python does, but does not free the objects of all imports, which takes longer than most calls.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        connection.send(bytes([code & 255]))
    os._exit(code)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    preload()
    # Pages that the collector does not touch stay shared with the forks.
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(sys.argv[1])
        listener.listen(64)
        print("ready", flush=True)
        # The end of standard input is that of the tests.
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection = listener.accept()[0]
            if not os.fork():
                listener.close()
                become(connection)
            connection.close()


if __name__ == "__main__":
    main()
