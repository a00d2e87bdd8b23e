"""`make demo`: a cluster on HyperContainer moves to Kata while builds flow, and the numbers are counted by somebody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import typing as t

import yaml

from lab import fleet
from lab.build import say
from lab.cluster import Lab
from lab.paths import SOURCE
from lab.processes import LabError

NODES = 20
KATA_NODES = 10
BUILDS_PER_SECOND = 15.0
FAULT_SHARE = 25
TOP = SOURCE.parent


class Demo:
    """One run on a lab of its own. With ``fault``, Kata's sandboxes begin to fail at ``FAULT_SHARE`` percent."""

    def __init__(self, fault: bool) -> None:
        self.fault = fault
        self.lab = Lab("demo")
        self.report = TOP / "demo-report.html"
        self._over = threading.Event()

    def run(self) -> bool:
        """Whether everything was as it must be."""
        began = time.monotonic()
        self.report.unlink(missing_ok=True)
        try:
            # Hollow kubelets would end no build.
            self.lab.up(NODES, control_plane="current")
            self._flow()
            fleet.convert(self.lab, KATA_NODES)
            say(f"Stand-in for the node part of site: {KATA_NODES} of {NODES} nodes have handler kata and count as proven")
            if self._play("site"):
                return False
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
        say(f"{'As it must be' if held else 'NOT as it must be'}; {time.monotonic() - began:.0f} s in all. Report: {self.report}")
        return held

    def _flow(self) -> None:
        self.lab.start_builds(BUILDS_PER_SECOND)
        say(f"{BUILDS_PER_SECOND:g} builds a second flow through the npm router, 15 % of them rhel6 images that must never reach Kata")
        deadline = time.monotonic() + 120
        while self.lab.stats().get("succeeded", 0) < BUILDS_PER_SECOND:
            if time.monotonic() > deadline:
                raise LabError(f"No builds have ended after 120 s: {self.lab.process('builds').tail(3)}")
            time.sleep(0.5)

    def _play(self, name: str) -> int:
        say(f"ansible-playbook screwdriver.kata.{name}")
        environment = {
            **os.environ,
            "ANSIBLE_STDOUT_CALLBACK": "screwdriver.kata.progress",
            # The lab's nodes are no hosts of an inventory.
            "ANSIBLE_HOST_PATTERN_MISMATCH": "ignore",
            **({"ANSIBLE_FORCE_COLOR": "1"} if sys.stdout.isatty() else {}),
            "ANSIBLE_PIPELINING": "1",
            "K8S_AUTH_KUBECONFIG": str(self.lab.kubeconfig),
        }
        command = ["ansible-playbook", f"screwdriver.kata.{name}", "-e", f"@{SOURCE / 'demo.yml'}", "-e", f"rollout_report={self.report}"]
        return subprocess.run(command, env=environment, check=False).returncode

    def _follow(self) -> None:
        """Plays the users of the pilot, and the bad moment: follows the record with kubectl, as anybody may."""
        injected = False
        while not self._over.wait(0.5):
            record = self._record()
            if record.get("phase") != "running":
                continue
            step = record["steps"][record["step"] - 1]
            if step["pilot"]:
                self.lab.pin_builds("k8s-kata", 1)
            elif self.fault and not injected and step["share"] == FAULT_SHARE:
                say("FAULT: from now on the sandbox of every Kata pod fails")
                self.lab.fault(True)
                injected = True

    def _record(self) -> dict[str, t.Any]:
        text = self.lab.kubectl("get", "configmap", "kata-rollout", "-n", "sd", "--ignore-not-found", "-o", "jsonpath={.data.record}")
        return json.loads(text) if text else {}

    def _judge(self, code: int) -> bool:
        """What others saw: kubectl the record and the config, the worker's side its builds."""
        say("Waiting for the builds that are under way")
        stats = self.lab.stop_builds()
        record = self._record()
        print(
            f"Seen by the worker's side: {stats['sent']} builds sent, {stats['succeeded']} succeeded, {stats['restarted']} of them at a second try,"
        )
        print(
            f"  {stats['lost']} lost, {stats['excluded_on_kata']} excluded builds on Kata; starts by executor: {json.dumps(stats['executors'])}"
        )
        checks = {
            "no build was lost": stats["lost"] == 0 and stats["wedged"] == 0 and stats["succeeded"] == stats["sent"],
            "no excluded build reached Kata": stats["excluded_on_kata"] == 0,
        }
        if self.fault:
            config = yaml.safe_load(
                self.lab.kubectl("get", "configmap", "buildcluster-queue-worker", "-n", "sd", "-o", "jsonpath={.data.local\\.yaml}")
            )
            checks["the rollout ended with an error"] = code != 0
            checks["Kata's weightage is back at 0"] = config["executor"]["k8s-kata"]["weightage"] == 0
            checks["the record says why"] = record["phase"] == "rolled_back" and "failed to start" in record["reason"]
        else:
            checks["the rollout has finished at 100 %"] = code == 0 and record["phase"] == "finished"
        for what, held in checks.items():
            print(f"  {'yes' if held else 'NO '}  {what}")
        return all(checks.values())
