"""`make e2e`: builds on one real machine that `site` made a Kata node, the trace of a build, and fault injection.

The machine is a virtual machine of Vagrant's, created and destroyed by molecule/default, or host ``node1`` of the inventory that
KATA_NODE_INVENTORY names. It is reset without a shutdown.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import typing as t
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from lab.cluster.lab import Lab
from lab.common import TOP, LabError, progress
from lab.machines import join
from lab.machines.ssh import Machine
from lab.processes import free_ports
from lab.programs import mirror
from lab.programs.go import KUBELET, NODE_PARTS, compile_part
from lab.scenarios.build_watcher import NAMESPACE, BuildWatcher

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
HOST = "node1"
MACHINE = {"name": HOST, "memory": 3072, "cpus": 2, "disks": 1, "disk_size": "20G"}
NODES = 3
BUILDS_PER_SECOND = 0.2
# Twice the worker's own rabbitmq.initTimeout: a machine that is emulated is slow.
INIT_SECONDS = 600
READY_SECONDS = 600
CONTAINERD_BEFORE = "containerd-1.7"
# What makes the roles take the real release and believe no stub.
REAL_KATA = {
    "kata": ("kata_base_url", "kata_checksums", "kata_require_virtualization"),
    "node_proof": ("node_proof_require_guest_kernel", "node_proof_require_block_root"),
}
MIRRORED = ("docker.io", "registry.k8s.io")


def release_variables(can_virtualize: bool) -> dict[str, t.Any]:
    """The variables of Kata's release: the roles' own defaults where a machine can run virtual machines, else those that let the stub pass."""
    if not can_virtualize:
        stand_in = {"kata_version": mirror.KATA_OF_OLD, "kata_handlers": [{"name": "kata", "config_path": ""}]}
        return {**stand_in, **{name: False for names in REAL_KATA.values() for name in names if "_require_" in name}}
    defaults = {role: yaml.safe_load((TOP / "roles" / role / "defaults" / "main.yml").read_text()) for role in REAL_KATA}
    return {name: defaults[role][name] for role, names in REAL_KATA.items() for name in names}


class EndToEnd:
    """One run on a lab of its own. ``extra`` is a file of variables that go before all others, or nothing."""

    def __init__(self, extra: str = "") -> None:
        self.lab = Lab("e2e")
        self.log = TOP / "e2e.log"
        self.checks: dict[str, bool] = {}
        self.times: dict[str, float] = {}
        self._extra = extra
        self._inventory = os.environ.get("KATA_NODE_INVENTORY", "")
        self._scenario = self.lab.directory / "molecule"
        # A socket's path may not be long.
        self._sockets = tempfile.TemporaryDirectory(prefix="kata-")
        self._started: list[subprocess.Popen[bytes]] = []
        self._versions: dict[str, str] = {}
        self._hit: list[int] = []

    def run(self) -> bool:
        """Whether everything was as it must be."""
        self.log.unlink(missing_ok=True)
        try:
            self._set_up()
            self._make_node()
            self._roll_out()
            self._site_again()
            self._upgrade()
            self._roll_back()
            self._power_cycle()
            self._remove()
            self._count()
        finally:
            self._take_down()
        for what, held in self.checks.items():
            print(f"  {'yes' if held else 'NO '}  {what}")
        print("Seconds: " + ", ".join(f"{what} {seconds:.0f}" for what, seconds in self.times.items()))
        return bool(self.checks) and all(self.checks.values())

    # Helpers

    def _judge(self, what: str, held: bool) -> None:
        self.checks[what] = held
        progress(f"  {'yes' if held else 'NO '}  {what}")

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        progress(f"==> {what}")
        began = time.monotonic()
        yield
        self.times[what] = time.monotonic() - began

    def _until(self, what: str, holds: Callable[[], t.Any], seconds: float) -> t.Any:
        """What ``holds`` returns once it is true."""
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            if time.monotonic() > deadline:
                raise LabError(f"{what} was not seen within {seconds:.0f} s.")
            time.sleep(1)
        return found

    def _start(self, name: str, **variables: t.Any) -> subprocess.Popen[bytes]:
        """A playbook of the collection as a user starts it; what it says goes to the log."""
        environment = {**os.environ, "K8S_AUTH_KUBECONFIG": str(self.lab.kubeconfig)}
        environment |= {
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_TIMEOUT": "90",
            "ANSIBLE_HOST_KEY_CHECKING": "false",
            "ANSIBLE_FORCE_COLOR": "0",
        }
        command = ["ansible-playbook", f"screwdriver.kata.{name}", "-i", self._inventory, "-e", f"@{HERE / 'e2e.yml'}"]
        command += [
            "-e",
            f"@{self.lab.directory / 'e2e.json'}",
            "-e",
            json.dumps(variables),
            *(["-e", f"@{self._extra}"] if self._extra else []),
        ]
        shown = "".join(f" -e {key}={json.dumps(value)}" for key, value in variables.items())
        progress(f"ansible-playbook screwdriver.kata.{name}{shown}")
        with self.log.open("ab") as log:
            log.write(f"\n==> {name}{shown}\n".encode())
            log.flush()
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=TOP)
        self._started.append(process)
        return process

    def _play(self, name: str, **variables: t.Any) -> str:
        """What a playbook said; one that fails ends the run."""
        position = self.log.stat().st_size if self.log.exists() else 0
        code = self._start(name, **{**self._versions, **variables}).wait()
        said = self.log.read_bytes()[position:].decode(errors="replace")
        if code:
            raise LabError(f"The playbook {name} failed:\n{said[-3000:]}")
        return said

    def _weightages(self) -> dict[str, int]:
        executor = self._worker_config()["executor"]
        return {name: entry["weightage"] for name, entry in executor.items() if isinstance(entry, dict)}

    def _worker_config(self) -> dict[str, t.Any]:
        return yaml.safe_load(self.lab.worker_config())

    def _builds_running(self, count: int) -> list[int]:
        """Waits until that many builds run on the machine, and returns all that do."""
        enough = self._until(f"{count} builds that run on {HOST}", lambda: len(self.watcher.on(HOST, "Running")) >= count, 600)
        assert enough
        return self.watcher.on(HOST, "Running")

    def _results(self, builds: list[int], seconds: float = 300) -> dict[int, str]:
        """How these builds ended, by the worker's journal."""

        def over() -> bool:
            return set(builds) <= set(self.watcher.journal())

        self._until(f"The end of builds {builds} in the worker's journal", over, seconds)
        return {build: self.watcher.journal()[build]["result"] for build in builds}

    # The cluster and its machine

    def _set_up(self) -> None:
        with self._timed("programs"):
            compile_part(KUBELET)
            mirror.pack()
        with self._timed("control plane"):
            self.lab.up(NODES)
            self._make_builds_small()
        with self._timed("machine"):
            if not self._inventory:
                self._molecule("create")
                self._inventory = str(self._write_inventory())
            self.machine = Machine(self._inventory, HOST, Path(self._sockets.name))
            self._refuse_containers()
        self._serve()
        with self._timed("joining"):
            join.join(self.lab, self.machine, self._registry)

    def _molecule(self, name: str) -> None:
        """Plays ``create`` or ``destroy`` of molecule/default, for a machine of this run's own."""
        self._scenario.mkdir(exist_ok=True)
        variables = {
            "molecule_yml": {"platforms": [MACHINE]},
            "molecule_ephemeral_directory": str(self._scenario),
            "molecule_scenario_directory": str(TOP / "molecule" / "default"),
            "molecule_instance_config": str(self._scenario / "instance_config.yml"),
            "machines": f"e2e-{hashlib.sha1(str(TOP).encode()).hexdigest()[:8]}",
        }
        command = ["ansible-playbook", "-e", json.dumps(variables), str(TOP / "molecule" / "default" / f"{name}.yml")]
        with self.log.open("ab") as log:
            done = subprocess.run(command, cwd=TOP, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise LabError(f"The playbook {name} of molecule/default failed: see {self.log}.")

    def _write_inventory(self) -> Path:
        (reached,) = yaml.safe_load((self._scenario / "instance_config.yml").read_text())
        host = {
            "ansible_host": reached["address"],
            "ansible_port": int(reached["port"]),
            "ansible_user": reached["user"],
            "ansible_ssh_private_key_file": reached["identity_file"],
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        path = self.lab.directory / "inventory.yml"
        path.write_text(yaml.safe_dump({"kata_nodes": {"hosts": {HOST: host}}}))
        return path

    def _refuse_containers(self) -> None:
        if self.machine.run("systemd-detect-virt --container", check=False) not in ("none", ""):
            raise LabError(
                f"{HOST} is a container: a reset would end the machine that it runs on. Name a machine of its own in KATA_NODE_INVENTORY."
            )

    def _make_builds_small(self) -> None:
        """All builds of this cluster ask for what its one real machine can give, the legacy ones too: room is judged by what there is."""
        config = self._worker_config()
        small = yaml.safe_load((HERE / "e2e.yml").read_text())["executor_entry"]["options"]["kubernetes"]["resources"]
        config["executor"]["k8s-vm"]["options"]["kubernetes"]["resources"] = small
        self.lab.set_worker_config(yaml.safe_dump(config, sort_keys=False))

    def _serve(self) -> None:
        """The release archives for this machine, the images for the node."""
        (self._registry,) = free_ports(1)
        self.lab.process("registry").start([sys.executable, "-m", "lab.machines.registry", "--port", self._registry], cwd=TOP)
        variables = yaml.safe_load(mirror.start(self.lab.run_dir).read_text())
        variables["containerd_registry_mirrors"] = {name: [f"http://127.0.0.1:{self._registry}"] for name in MIRRORED}
        # An emulated processor may claim to have svm.
        probe = "test -c /dev/kvm && grep -qwE 'vmx|svm' /proc/cpuinfo && [ \"$(systemd-detect-virt)\" != qemu ] && echo yes"
        self._real = self.machine.run(probe, check=False) == "yes"
        progress(
            f"Kata: {'the real release' if self._real else 'a stub for its release, whose shim is that of runc: the machine cannot run virtual machines'}"
        )
        variables |= release_variables(self._real)
        self._after = {"containerd_version": variables.pop("containerd_version")}
        self._versions = {"containerd_version": _pin(CONTAINERD_BEFORE)}
        (self.lab.directory / "e2e.json").write_text(json.dumps(variables))

    # The trace

    def _make_node(self) -> None:
        with self._timed("site, first run"):
            self._play("site")
        self._judge("Kata's weightage is 0 after site", self._weightages()["k8s-kata"] == 0)
        self.watcher = BuildWatcher(self.lab)
        self.watcher.start()
        self.lab.start_builds(BUILDS_PER_SECOND, INIT_SECONDS)

    def _roll_out(self) -> None:
        with self._timed("rollout"):
            rollout = self._start("rollout", **self._versions)
            while rollout.poll() is None:
                record = self.lab.record()
                piloted = record.get("phase") == "running" and record["steps"][record["step"] - 1]["pilot"]
                # No more at once than a small machine starts.
                if piloted and len(self.watcher.alive()) < 2:
                    self.lab.pin_builds("k8s-kata", 1)
                time.sleep(5)
            record = self.lab.record()
        self._judge("the rollout has finished at its last step", rollout.returncode == 0 and record.get("phase") == "finished")
        if rollout.returncode:
            raise LabError(f"The rollout did not finish: {record.get('reason') or f'see {self.log}'}")
        self._show_trace()

    def _show_trace(self) -> None:
        build = self._until("A build that has just begun on the machine", self._fresh_build, 600)
        pod = self.watcher.pods[build]
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        weightages = self._weightages()
        seen = json.loads(self.machine.run(f"bash -s -- {uid} {build}", stdin=(HERE / "trace.sh").read_bytes()))
        scheduled = self._scheduled(name)
        result = self._results([build])[build]
        entry = self.watcher.journal()[build]
        posted = [event for event in self._audit("create") if event["objectRef"].get("name") == name]
        spec = pod["spec"]
        term = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0][
            "matchExpressions"
        ][0]
        print(f"Trace of build {build}, image {entry['image']}")
        print(f"  router      picked {entry['executor']} at weightages {json.dumps(weightages)} (the worker's journal, its ConfigMap)")
        print(
            f"  executor    posted pod {name} as user {posted[0]['user']['username'] if posted else '?'}: runtimeClassName {spec['runtimeClassName']},"
        )
        print(f"              affinity {term['key']} {term['operator']} {term['values']} (audit log, kubectl)")
        print(
            f"  API server  added overhead {json.dumps(spec['overhead'])} and nodeSelector {json.dumps(spec['nodeSelector'])} of the RuntimeClass (kubectl)"
        )
        print(f"  scheduler   {scheduled or 'no event'} (event)")
        print(f"  kubelet     cgroup of the sandbox {seen['cgroup']} (/proc)")
        print(f"  containerd  {seen['containerd']}, handler {seen['handler']} (crictl), runtime {seen['runtime']} (ctr)")
        print(
            f"  snapshot    {seen['snapshotter']} {seen['snapshot'][:12]} on {seen['device']}: {seen['table']} (ctr, /proc/mounts, dmsetup)"
        )
        print(f"  shim        {seen['shim']} (/proc); kernel {seen['kernel']}, in the sandbox {seen['guest_kernel']} (uname)")
        print(f"  exit        {result} at {entry['ended']} (the worker's journal)")
        self._judge(
            f"build {build}: the router picked k8s-kata and the worker posted its pod", entry["executor"] == "k8s-kata" and bool(posted)
        )
        self._judge(f"build {build}: the scheduler chose {HOST}", f"to {HOST}" in scheduled)
        self._judge(f"build {build}: it ran under handler kata by Kata's shim", seen["handler"] == "kata" and "/kata" in seen["shim"])
        on_pool = seen["snapshotter"] == "devmapper" and " thin " in f" {seen['table']} " and seen["pool"].strip("()") in seen["table"]
        self._judge(f"build {build}: its root is a thin device of the pool", on_pool)
        self._judge(f"build {build}: its sandbox is in the kubelet's cgroup of its pod", uid.replace("-", "_") in seen["cgroup"])
        if self._real:
            self._judge(f"build {build}: the kernel in its sandbox is not the machine's", seen["guest_kernel"] not in ("", seen["kernel"]))
        self._judge(f"build {build}: it has succeeded", result == "Succeeded")

    def _scheduled(self, pod: str) -> str:
        """What the scheduler said of a pod."""
        selector = f"involvedObject.name={pod},reason=Scheduled"
        return self.lab.kubectl("get", "events", "-n", NAMESPACE, "--field-selector", selector, "-o", "jsonpath={.items[*].message}")

    def _fresh_build(self) -> int | None:
        """A build that runs for long, as its number says, and has not run for long yet."""
        now = time.time()
        for build in self.watcher.on(HOST, "Running"):
            started = self.watcher.pods[build]["status"]["containerStatuses"][0]["state"].get("running", {}).get("startedAt")
            if build % 5 >= 3 and started and now - _seconds(started) < 15:
                return build
        return None

    def _audit(self, verb: str) -> list[dict[str, t.Any]]:
        events = (json.loads(line) for line in self.lab.audit_log.read_text().splitlines())
        return [event for event in events if event["verb"] == verb and event["objectRef"].get("resource") == "pods"]

    # What may befall the machine

    def _site_again(self) -> None:
        with self._timed("site, second run"):
            running = self._builds_running(1)
            said = self._play("site")
        self._judge("a second run of site, under builds, changes nothing", set(re.findall(r"changed=(\d+)", said)) == {"0"})
        self._judge("the builds that ran meanwhile have succeeded", set(self._results(running).values()) == {"Succeeded"})

    def _upgrade(self) -> None:
        with self._timed("containerd upgraded while builds run"):
            running = self._builds_running(1)
            self._versions = self._after
            self._play("site")
        version = self.machine.run("containerd --version").split()[2].removeprefix("v")
        self._judge(
            f"containerd went from {_pin(CONTAINERD_BEFORE)} to {version} by one variable", version == self._after["containerd_version"]
        )
        self._judge("the builds that ran before have succeeded", set(self._results(running).values()) == {"Succeeded"})
        self._show_trace()

    def _roll_back(self) -> None:
        with self._timed("rollback while builds run"):
            running = self._builds_running(1)
            self._play("rollback")
        self._judge("Kata's weightage is 0 after rollback", self._weightages()["k8s-kata"] == 0)
        self._judge("the builds that ran on the node have succeeded after it", set(self._results(running).values()) == {"Succeeded"})

    def _power_cycle(self) -> None:
        with self._timed("power cycle while a rollout watches"):
            # More builds than the time lets through: without the machine there is no evidence.
            rollout = self._start("rollout", **self._versions, rollout_steps=[20], rollout_min_builds=20, rollout_patience=90)
            self._builds_running(1)
            boot, over = self._boot_id(), set(self.watcher.journal())
            progress(f"FAULT: {HOST} is reset while builds {self.watcher.on(HOST, 'Running')} run on it")
            # As the reset button does: nothing is written, nothing is asked, and nobody answers.
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(self.machine.command("echo b > /proc/sysrq-trigger"), timeout=20, capture_output=True, check=False)
            self._hit = [build for build in self.watcher.on(HOST) if build not in over]
            code = rollout.wait()
            record = self.lab.record()
            progress(f"The rollout is {record['phase']}: {record['reason']}")
            self._until(f"Another boot of {HOST}", lambda: self._boot_id() not in ("", boot), READY_SECONDS)
            self._until("The kubelet of that boot, and its node Ready", self._is_ready_again, READY_SECONDS)
            # Its node counts as Ready for a while after the reset, so that more builds are bound to it.
            later = [build for build in self.watcher.on(HOST) if build not in (*over, *self._hit)]
            progress(f"{HOST} is Ready again: it had builds {self._hit} when it was reset, and got {later} since")
        self._judge("the rollout paused or went back by its own rule", code != 0 and record["phase"] in ("paused", "rolled_back"))
        self._judge("the node came back by itself with its pool", self.machine.run("ctr plugins ls | grep devmapper").endswith("ok"))
        with self._timed("verify while builds start"):
            newest = max(self.watcher.pods)
            verify = self._start("verify", **self._versions)
            while verify.poll() is None:
                # Some that run, and some that start.
                if len(self.watcher.alive()) < 4:
                    self.lab.pin_builds("k8s-kata", 1)
                time.sleep(2)
            # One that had waited for room since long ago may time out now.
            started = [build for build in self.watcher.on(HOST) if build > newest]
        self._judge("the node is proven again by verify", verify.returncode == 0)
        results = self._results([*started, *later, *self._hit], READY_SECONDS)
        self._judge(
            "the builds that were sent to the machine during verify have succeeded", {results[build] for build in started} == {"Succeeded"}
        )
        self._judge(
            f"the {len(later)} that came to it while it was away have succeeded too", all(results[build] == "Succeeded" for build in later)
        )
        self._play("rollback")

    def _boot_id(self) -> str:
        """The machine's present boot; nothing where it does not answer."""
        self.machine.disconnect()
        return self.machine.run("cat /proc/sys/kernel/random/boot_id", check=False)

    def _is_ready_again(self) -> bool:
        seen = self.lab.kubectl("get", "node", HOST, "-o", "jsonpath={.status.nodeInfo.bootID}")
        return seen == self._boot_id() and join.is_ready(self.lab, HOST)

    def _remove(self) -> None:
        with self._timed("remove while builds run"):
            self.lab.pin_builds("k8s-kata", 2)
            running = self._builds_running(2)
            remove = self._start("remove", **self._versions)
            results = self._results(running)
            code = remove.wait()
        self._judge("remove waited for the builds that ran, and all have succeeded", code == 0 and set(results.values()) == {"Succeeded"})
        left = self.machine.run(
            "ls -d /opt/kata /usr/local/bin/containerd /etc/containerd/config.toml; lvs --noheadings -o lv_name kata", check=False
        )
        self._judge(f"the machine is as it was before site{f', but has {left}' if left else ''}", not left)

    def _count(self) -> None:
        progress("Waiting for the builds that are under way")
        # One that found no room is started again after the worker's own timeout.
        stats = self.lab.stop_builds(INIT_SECONDS + 300)
        journal = self.watcher.journal()
        there = self.watcher.on(HOST)
        print(f"Seen by the worker's side: {json.dumps(stats)}; builds on {HOST}: {len(there)}")
        failed = [build for build, entry in journal.items() if entry["result"] == "Failed"]
        self._judge("no build was lost", stats["lost"] == 0 and stats["wedged"] == 0 and stats["succeeded"] + len(failed) == stats["sent"])
        for build, entry in journal.items():
            if entry["result"] != "Succeeded":
                print(f"  {entry['result']}: {self._describe(build, entry)}")
        self._judge("none failed but those that the machine had when it was reset", set(failed) <= set(self._hit))
        excluded = [build for build, entry in journal.items() if re.search("rhel6", entry["image"], re.IGNORECASE)]
        print(f"rhel6 builds: {len(excluded)}, of them on {HOST}: {len(set(excluded) & set(there))}")
        self._judge(f"no rhel6 build came to {HOST}", bool(excluded) and not set(excluded) & set(there))

    def _describe(self, build: int, entry: dict[str, t.Any]) -> str:
        """How a build came to its end, by what was last seen of its pod."""
        pod = self.watcher.pods.get(build, {"spec": {}, "status": {}})
        status = pod["status"]
        bound = next(
            (one["lastTransitionTime"] for one in status.get("conditions", []) if (one["type"], one["status"]) == ("PodScheduled", "True")),
            "never",
        )
        states = [one["state"] for one in status.get("containerStatuses", [])]
        what = json.dumps({key: status[key] for key in ("reason", "message") if key in status} | {"containers": states})
        return f"build {build} on {pod['spec'].get('nodeName', 'no node')}, bound {bound}, ended {entry['ended']}: {what}"

    def _take_down(self) -> None:
        progress("Taking everything down")
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if hasattr(self, "machine"):
            self.machine.disconnect()
        self._sockets.cleanup()
        if not os.environ.get("KATA_NODE_INVENTORY") and self._scenario.exists():
            self._molecule("destroy")
        self.lab.down()
        if hasattr(self, "watcher"):
            self.watcher.over.set()
            self.watcher.join(10)


def _pin(part: str) -> str:
    return next(one.version for one in NODE_PARTS if one.name == part).removeprefix("v")


def _seconds(stamp: str) -> float:
    return time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
