"""Labels thousands of nodes: the module node_pool, a loop over kubernetes.core.k8s, and `kubectl label`, side by side on one lab.

The nodes are registered and not simulated (controller manager, scheduler and kwok are stopped), so that only the writers and the API
server work. Every way is timed as the whole command that a user types.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
import typing as t
from pathlib import Path

from lab.cluster import kwok
from lab.cluster.lab import Lab
from lab.common import progress

SAMPLE = 20
LABEL = "dedicated"


class Bench:
    def __init__(self, lab: Lab, count: int) -> None:
        self.lab = lab
        self.count = count
        self.names = [f"build-{number}" for number in range(1, count + 1)]

    def run(self) -> dict[str, float]:
        """Seconds by way; that of the loop is scaled up from a sample."""
        one, sample = (self._play(self._loop(names, f"loop-{len(names)}")) for names in (self.names[:1], self.names[:SAMPLE]))
        each = (sample - one) / (SAMPLE - 1)
        return {
            "loop over kubernetes.core.k8s": one + each * (self.count - 1),
            "kubectl label nodes --all": self._kubectl("by-kubectl"),
            "node_pool": self._play(self._pool("by-node-pool")),
            "node_pool, nothing to do": self._play(self._pool("by-node-pool")),
        }

    def _loop(self, names: list[str], value: str) -> dict[str, t.Any]:
        definition = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "{{ item }}", "labels": {LABEL: value}}}
        return {"kubernetes.core.k8s": {"definition": definition}, "loop": names}

    def _pool(self, value: str) -> dict[str, t.Any]:
        return {"screwdriver.kata.node_pool": {"selector": "", "labels": {LABEL: value}}}

    def _play(self, task: dict[str, t.Any]) -> float:
        play = self.lab.directory / "bench.yml"
        play.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}]))
        return self._time(["ansible-playbook", str(play)])

    def _kubectl(self, value: str) -> float:
        return self._time([self.lab.settings["programs"]["kubectl"], "label", "nodes", "--all", "--overwrite", f"{LABEL}={value}"])

    def _time(self, command: list[str]) -> float:
        environment = {**os.environ, "KUBECONFIG": str(self.lab.kubeconfig), "K8S_AUTH_KUBECONFIG": str(self.lab.kubeconfig)}
        began = time.monotonic()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 5000])
    counts = sorted(parser.parse_args().nodes)
    lab = Lab(f"bench-{Path(__file__).stem.replace('_', '-')}")
    try:
        lab.up(nodes=0)
        for name in ("kwok", "kube-scheduler", "kube-controller-manager"):
            lab.process(name).stop()
        print(f"{'nodes':>6}  {'way':32} {'seconds':>8}  {'to node_pool':>12}")
        registered = 0
        for count in counts:
            progress(f"Registering nodes {registered + 1} to {count}")
            kwok.create(lab.kubeconfig, count, registered + 1)
            registered = count
            seconds = Bench(lab, count).run()
            for way, spent in seconds.items():
                print(f"{count:6}  {way:32} {spent:8.1f}  {spent / seconds['node_pool']:11.2f}x", flush=True)
    finally:
        lab.down()


if __name__ == "__main__":
    main()
