"""Command line of the lab: ``python -m lab up``."""

from __future__ import annotations

import argparse
import json
import signal
import sys

from lab.cluster import kwok
from lab.cluster.lab import NODES, Lab
from lab.common import LABS, LabError, progress
from lab.scenarios.demo import Demo
from lab.scenarios.e2e import EndToEnd


def up(lab: Lab, options: argparse.Namespace) -> None:
    lab.up(options.nodes)


def down(lab: Lab, options: argparse.Namespace) -> None:
    lab.down()


def status(lab: Lab, options: argparse.Namespace) -> None:
    settings = lab.settings
    memory = lab.memory()
    print(f"lab {lab.name}: {'up' if lab.is_up() else 'incomplete: run up again'}")
    print(f"  API server  https://{lab.server}   KUBECONFIG={lab.kubeconfig}")
    print(f"  nodes       {kwok.count_ready(lab.kubeconfig)} of {settings.get('nodes', '?')} ready")
    print(
        f"  memory      {sum(memory.values()) / 2**20:.0f} MiB: " + ", ".join(f"{name} {size / 2**20:.0f}" for name, size in memory.items())
    )
    if stats := lab.stats():
        print(f"  builds      {json.dumps(stats)}")


def kubeconfig(lab: Lab, options: argparse.Namespace) -> None:
    lab.settings  # noqa: B018  fails where there is no such lab
    print(lab.kubeconfig)


def names(lab: Lab, options: argparse.Namespace) -> None:
    for directory in sorted(LABS.glob("*/lab.json")):
        print(directory.parent.name)


def convert(lab: Lab, options: argparse.Namespace) -> None:
    print(f"Simulated the node part of site: {' '.join(lab.convert_nodes(options.count))} report handler kata and count as verified")


def builds(lab: Lab, options: argparse.Namespace) -> None:
    if options.action == "start":
        lab.start_builds(options.rate)
    else:
        print(json.dumps(lab.stop_builds() if options.action == "stop" else lab.stats()))


def fault(lab: Lab, options: argparse.Namespace) -> None:
    lab.fault(options.kind)


def demo(lab: Lab, options: argparse.Namespace) -> None:
    with Lab("demo").held():
        passed = Demo(options.fault == "failed-starts").run()
    if not passed:
        raise LabError("checks of the demo failed: see the lines that begin with NO above.")


def e2e(lab: Lab, options: argparse.Namespace) -> None:
    with Lab("e2e").held():
        passed = EndToEnd(options.variables).run()
    if not passed:
        raise LabError("checks of the end-to-end run failed: see the lines that begin with NO above.")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default="default", help="which lab (default: %(default)s)")

    def command(function: object, name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, parents=[common])
        added.set_defaults(function=function)
        return added

    start = command(up, "up", "start a lab, or start it again after a crash")
    start.add_argument("--nodes", type=int, default=NODES, help="simulated build nodes (default: %(default)s)")
    command(down, "down", "stop a lab and remove its data")
    command(status, "status", "print processes, addresses and memory")
    command(kubeconfig, "kubeconfig", "print the path of the administrator's kubeconfig")
    command(names, "list", "print the names of the labs on this machine")
    command(convert, "convert", "simulate the node part of site on the first COUNT nodes").add_argument("count", type=int)
    flow = command(builds, "builds", "start or stop the stub of the queue worker, which sends builds through the npm router")
    flow.add_argument("action", choices=("start", "stop", "stats"))
    flow.add_argument("--rate", type=float, default=10, help="builds a second (default: %(default)s)")
    command(fault, "fault", "make the starts of builds fail or slow, or work again").add_argument("kind", choices=sorted(kwok.FAULTS))
    command(demo, "demo", "roll Kata out on a separate lab").add_argument(
        "--fault", choices=("", "failed-starts"), default="", help="the fault to inject"
    )
    whole = command(e2e, "e2e", "run builds on one real machine of a separate lab, with fault injection")
    whole.add_argument(
        "--variables", default="", metavar="FILE", help="variables that take precedence, for example of another release of Kata"
    )
    return top


def main() -> int:
    options = parser().parse_args()
    # A lab that is interrupted by SIGTERM while it starts removes itself, as with Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    try:
        options.function(Lab(options.name), options)
    except LabError as exc:
        progress(f"lab: {exc}")
        return 1
    except KeyboardInterrupt:
        progress("lab: interrupted; nothing is left running")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
