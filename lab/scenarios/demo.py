"""`make demo`: a cluster on HyperContainer moves to Kata while builds run; kubectl and the worker's journal give the figures."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import yaml

from lab.cluster.lab import Lab
from lab.common import TOP, LabError, progress, wait_until

NODES = 20
KATA_NODES = 10
BUILDS_PER_SECOND = 12.0
FAULT_SHARE = 25
VARIABLES = Path(__file__).parent / "demo.yml"


class Demo:
    """One run on a separate lab. With ``fault``, Kata's sandboxes begin to fail at ``FAULT_SHARE`` percent."""

    def __init__(self, fault: bool) -> None:
        self.fault = fault
        self.lab = Lab("demo")
        self.report = TOP / "demo-report.html"
        self._over = threading.Event()

    def run(self) -> bool:
        """Runs it, and returns whether all checks passed."""
        began = time.monotonic()
        self.report.unlink(missing_ok=True)
        try:
            self.lab.up(NODES)
            self.lab.start_builds(BUILDS_PER_SECOND)
            rate = f"{BUILDS_PER_SECOND:g} builds a second"
            progress(f"{rate} go through the npm router, 15 % of them use rhel6 images, which must never reach Kata")
            self.lab.convert_nodes(KATA_NODES)
            progress(f"Simulated the node part of site: {KATA_NODES} of {NODES} nodes report handler kata and count as verified")
            if self._play("site"):
                return False
            self._wait_for_builds()
            helper = threading.Thread(target=self._follow, daemon=True)
            helper.start()
            code = self._play("rollout")
            self._over.set()
            helper.join()
            if self.fault:
                self._play("status")
            held = self._judge(code)
        finally:
            self._over.set()
            self.lab.down()
        progress(f"{'All checks passed' if held else 'Checks FAILED'} after {time.monotonic() - began:.0f} s. Report: {self.report}")
        return held

    def _wait_for_builds(self) -> None:
        wait_until(
            lambda: self.lab.stats().get("succeeded", 0) >= BUILDS_PER_SECOND,
            lambda: f"No build has ended after 120 s: {self.lab.process('builds').tail(3)}",
            seconds=120,
        )

    def _play(self, name: str) -> int:
        progress(f"ansible-playbook screwdriver.kata.{name}")
        environment = {
            **os.environ,
            "ANSIBLE_STDOUT_CALLBACK": "screwdriver.kata.progress",
            # The lab's nodes are not hosts of an inventory.
            "ANSIBLE_HOST_PATTERN_MISMATCH": "ignore",
            **({"ANSIBLE_FORCE_COLOR": "1"} if sys.stdout.isatty() else {}),
            "ANSIBLE_PIPELINING": "1",
            "K8S_AUTH_KUBECONFIG": str(self.lab.kubeconfig),
        }
        command = ["ansible-playbook", f"screwdriver.kata.{name}", "-e", f"@{VARIABLES}", "-e", f"rollout_report={self.report}"]
        return subprocess.run(command, env=environment, check=False).returncode

    def _follow(self) -> None:
        """Follows the record with kubectl: pins builds during the pilot as users would, and then injects the fault, if any."""
        while not self._over.wait(0.5):
            try:
                record = self.lab.record()
            except LabError as error:
                progress(f"{error} Trying again.")
                continue
            if record.get("phase") != "running":
                continue
            step = record["steps"][record["step"] - 1]
            if step["pilot"]:
                self.lab.pin_builds("k8s-kata", 1)
            elif not self.fault:
                return
            elif step["share"] == FAULT_SHARE:
                progress("FAULT: from now on the sandbox of every Kata pod fails")
                self.lab.fault("failed-starts")
                return

    def _judge(self, code: int) -> bool:
        """Judges by other programs: kubectl for record and config, the worker's figures for builds."""
        progress("Waiting for the builds in flight")
        stats = self.lab.stop_builds()
        record = self.lab.record()
        starts = ", ".join(f"{name} {count}" for name, count in stats["executors"].items())
        print(
            f"Counted by the worker: {stats['sent']} builds sent, {stats['succeeded']} succeeded,\n"
            f"  {stats['restarted']} of them when restarted, {stats['lost']} lost, {stats['excluded_on_kata']} excluded builds on Kata\n"
            f"  starts: {starts}"
        )
        checks = {
            "no build was lost": stats["lost"] == 0 and stats["wedged"] == 0 and stats["succeeded"] == stats["sent"],
            "no excluded build reached Kata": stats["excluded_on_kata"] == 0,
        }
        if self.fault:
            config = yaml.safe_load(self.lab.worker_config())
            checks["the rollout ended with an error"] = code != 0
            checks["Kata's weightage is back at 0"] = config["executor"]["k8s-kata"]["weightage"] == 0
            checks["the record has the reason"] = record["phase"] == "rolled_back" and "failed to start" in record["reason"]
        else:
            checks["the rollout has finished at 100 %"] = code == 0 and record["phase"] == "finished"
        for what, held in checks.items():
            print(f"  {'yes' if held else 'NO '}  {what}")
        return all(checks.values())
