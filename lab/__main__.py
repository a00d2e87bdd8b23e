"""Command line of the lab: ``python -m lab up``."""

from __future__ import annotations

import argparse
import json
import signal
import sys

from lab import fallback, fleet
from lab.build import BuildError, say
from lab.cluster import NODES, Lab
from lab.demo import Demo
from lab.e2e import EndToEnd
from lab.paths import LABS
from lab.processes import LabError


def up(lab: Lab, options: argparse.Namespace) -> None:
    lab.up(options.nodes, options.control_plane)


def down(lab: Lab, options: argparse.Namespace) -> None:
    lab.down()


def status(lab: Lab, options: argparse.Namespace) -> None:
    settings = lab.settings
    memory = lab.memory()
    print(f"lab {lab.name}: {'up' if lab.is_up() else 'not whole: run up again'}")
    print(f"  API server  https://{lab.server}   KUBECONFIG={lab.kubeconfig}")
    print(f"  nodes       {fleet.ready(lab)} of {settings.get('nodes', '?')} ready")
    print(
        f"  memory      {sum(memory.values()) / 2**20:.0f} MiB: " + ", ".join(f"{name} {size / 2**20:.0f}" for name, size in memory.items())
    )
    if stats := lab.stats():
        print(f"  builds      {json.dumps(stats)}")


def kubeconfig(lab: Lab, options: argparse.Namespace) -> None:
    lab.settings  # noqa: B018  a lab that is not there is an error
    print(lab.kubeconfig)


def names(lab: Lab, options: argparse.Namespace) -> None:
    for directory in sorted(LABS.glob("*/lab.json")):
        print(directory.parent.name)


def convert(lab: Lab, options: argparse.Namespace) -> None:
    print(f"Stand-in for the node part of site: {' '.join(fleet.convert(lab, options.count))} have handler kata and count as proven")


def builds(lab: Lab, options: argparse.Namespace) -> None:
    if options.action == "start":
        lab.start_builds(options.rate)
    else:
        print(json.dumps(lab.stop_builds() if options.action == "stop" else lab.stats()))


def fault(lab: Lab, options: argparse.Namespace) -> None:
    lab.fault(options.kind == "failed-starts")


def _run(whole: Demo | EndToEnd) -> bool:
    with whole.lab.held():
        return whole.run()


def demo(lab: Lab, options: argparse.Namespace) -> None:
    if not _run(Demo(options.fault == "failed-starts")):
        raise LabError("the demo did not show what it must show")


def e2e(lab: Lab, options: argparse.Namespace) -> None:
    if not _run(EndToEnd(options.variables)):
        raise LabError("the end-to-end run did not show what it must show")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default="default", help="which lab (default: %(default)s)")

    def command(function: object, name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, parents=[common])
        added.set_defaults(function=function)
        return added

    start = command(up, "up", "bring a lab up; again after a crash")
    start.add_argument(
        "--nodes", type=int, help=f"build nodes (default: {NODES}; {fallback.NODES} hollow kubelets on the older control plane)"
    )
    start.add_argument(
        "--control-plane",
        choices=fallback.CHOICES,
        help=f"auto: the current one where it can be had, else debian, Kubernetes {fallback.VERSION} (default: $KATA_CONTROL_PLANE, else auto)",
    )
    command(down, "down", "end a lab and remove all it kept")
    command(status, "status", "what runs, where, and how much memory it takes")
    command(kubeconfig, "kubeconfig", "print the path of the administrator's kubeconfig")
    command(names, "list", "the labs on this machine")
    command(convert, "convert", "stand-in for the node part of site").add_argument("count", type=int)
    flow = command(builds, "builds", "the stand-in for the queue worker: builds through the npm router")
    flow.add_argument("action", choices=("start", "stop", "stats"))
    flow.add_argument("--rate", type=float, default=10, help="builds a second (default: %(default)s)")
    command(fault, "fault", "let Kata's sandboxes fail, or work again").add_argument("kind", choices=("failed-starts", "none"))
    command(demo, "demo", "roll Kata out on a lab of its own").add_argument(
        "--fault", choices=("", "failed-starts"), default="", help="what goes wrong"
    )
    whole = command(e2e, "e2e", "builds on one real machine, on a lab of its own, and what may befall the machine")
    whole.add_argument("--variables", default="", metavar="FILE", help="variables that go before all others, as of another release of Kata")
    return top


def main() -> int:
    options = parser().parse_args()
    # A lab that is ended by a signal while it comes up clears itself away, as with Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    try:
        options.function(Lab(options.name), options)
    except (BuildError, LabError) as exc:
        say(f"lab: {exc}")
        return 1
    except KeyboardInterrupt:
        say("lab: interrupted; nothing is left running")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
