"""`make e2e`: builds on one real machine that `site` made a Kata node, the trace of a build, and fault injection.

The machine is a virtual machine of Vagrant's, created and destroyed by molecule/default, or host ``node1`` of the inventory that
KATA_NODE_INVENTORY names. It is reset without a shutdown.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import typing as t
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from lab.cluster.lab import Lab
from lab.common import TOP, LabError, progress, wait_until
from lab.machines import join, vm
from lab.machines.ssh import Machine
from lab.processes import free_ports
from lab.programs import mirror
from lab.programs.go import KUBELET, NODE_PARTS, compile_part
from lab.programs.kata_release import STUB_VARIABLES
from lab.scenarios.build_watcher import NAMESPACE, BuildWatcher

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
HOST = "node1"
CONTAINERD_BEFORE = "containerd-1.7"
MIRRORED = ("docker.io", "registry.k8s.io")
VARIABLES = HERE / "e2e.yml"
STAGES = ("site_again", "roll_back", "upgrade", "power_cycle", "remove")


@dataclass(frozen=True)
class Settings:
    """What the dictionary ``e2e`` of the variables sets.

    Attributes:
        real_kata: Whether Kata's real release is installed, and the guest's kernel judged; else the stub of the mirror.
        release_directory: A directory with releases of Kata (VERSION/kata-static-...), which is served to the roles.
        stages: Those of ``STAGES`` that run, in this order.
        nodes: Simulated legacy nodes.
        builds_per_second: The rate of the builds.
        init_seconds: The worker's init timeout; twice its default, since an emulated machine is slow.
        ready_seconds: How long the machine may take to be Ready after a reset.
        memory: MiB of the virtual machine.
        kubelet: Settings of the kubelet that replace those of the lab.
    """

    real_kata: bool = False
    release_directory: str = ""
    stages: tuple[str, ...] = STAGES
    nodes: int = 3
    builds_per_second: float = 0.2
    init_seconds: float = 600
    ready_seconds: float = 600
    memory: int = 3072
    kubelet: dict[str, t.Any] = field(default_factory=dict)

    @classmethod
    def read(cls, *files: Path | str) -> Settings:
        """The settings of files of variables, of which the last one takes precedence.

        Raises:
            LabError: A setting or a stage is unknown.
        """
        given: dict[str, t.Any] = {}
        for file in files:
            given |= (yaml.safe_load(Path(file).read_text()) or {}).get("e2e", {})
        names = {one.name for one in fields(cls)}
        if unknown := sorted(given.keys() - names):
            raise LabError(f"e2e: {', '.join(unknown)} is not a setting; use {', '.join(sorted(names))}.")
        if unknown := [stage for stage in given.get("stages", []) if stage not in STAGES]:
            raise LabError(f"e2e.stages: {', '.join(unknown)} is not a stage; use {', '.join(STAGES)}.")
        return cls(**{**given, "stages": tuple(given.get("stages", STAGES))})


# The stub's shim has no options, so it asks systemd for no unit, and systemd takes its controllers from a slice that has none.
CGROUPFS = {"containerd_systemd_cgroup": False, "kata_systemd_cgroup": False}


def release_variables(real: bool) -> dict[str, t.Any]:
    """The variables of Kata's release: none for the real one, else those that make the roles accept the stub."""
    return {} if real else {"kata_version": mirror.KATA_OF_OLD, **STUB_VARIABLES, **CGROUPFS}


class EndToEnd:
    """One run on a separate lab. ``extra`` names a file of variables that take precedence, or is empty."""

    def __init__(self, extra: str = "") -> None:
        self.lab = Lab("e2e")
        self.log = TOP / "e2e.log"
        self.checks: dict[str, bool] = {}
        self.times: dict[str, float] = {}
        self._extra = extra
        self.settings = Settings.read(VARIABLES, *([extra] if extra else []))
        self._inventory = os.environ.get("KATA_NODE_INVENTORY", "")
        self._scenario = self.lab.directory / "molecule"
        self._virtual = self.lab.directory / "machine"
        self._environment: dict[str, str] = {}
        # The path of a socket is limited to 108 bytes.
        self._sockets = tempfile.TemporaryDirectory(prefix="kata-")
        self._started: list[subprocess.Popen[bytes]] = []
        self._versions: dict[str, str] = {}
        self._hit: list[int] = []

    def run(self) -> bool:
        """Runs it, and returns whether all checks passed."""
        self.log.unlink(missing_ok=True)
        try:
            self._set_up()
            self._make_node()
            self._roll_out()
            for stage in self.settings.stages:
                getattr(self, f"_{stage}")()
            self._count()
        finally:
            self._take_down()
        for what, passed in self.checks.items():
            print(f"  {'yes' if passed else 'NO '}  {what}")
        print("Seconds: " + ", ".join(f"{what} {seconds:.0f}" for what, seconds in self.times.items()))
        return bool(self.checks) and all(self.checks.values())

    # Helpers

    def _check(self, what: str, passed: bool) -> None:
        self.checks[what] = passed
        progress(f"  {'yes' if passed else 'NO '}  {what}")

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        progress(f"==> {what}")
        began = time.monotonic()
        yield
        self.times[what] = time.monotonic() - began

    def _until(self, what: str, holds: Callable[[], t.Any], seconds: float) -> t.Any:
        """What ``holds`` returns once it is true."""
        return wait_until(holds, f"{what}: not within {seconds:.0f} s.", seconds, interval=1)

    def _start(self, name: str, **variables: t.Any) -> subprocess.Popen[bytes]:
        """Starts a playbook of the collection as a user does; its output goes to the log."""
        environment = {**os.environ, "K8S_AUTH_KUBECONFIG": str(self.lab.kubeconfig)}
        environment |= {
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_TIMEOUT": "90",
            "ANSIBLE_HOST_KEY_CHECKING": "false",
            "ANSIBLE_FORCE_COLOR": "0",
        }
        command = ["ansible-playbook", f"screwdriver.kata.{name}", "-i", self._inventory, "-e", f"@{VARIABLES}"]
        command += [
            "-e",
            f"@{self.lab.directory / 'e2e.json'}",
            "-e",
            json.dumps(variables),
            *(["-e", f"@{self._extra}"] if self._extra else []),
        ]
        options = "".join(f" -e {key}={json.dumps(value)}" for key, value in variables.items())
        progress(f"ansible-playbook screwdriver.kata.{name}{options}")
        with self.log.open("ab") as log:
            log.write(f"\n==> {name}{options}\n".encode())
            log.flush()
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=TOP)
        self._started.append(process)
        return process

    def _play(self, name: str, **variables: t.Any) -> str:
        """Runs a playbook and returns its output; one that fails ends the run."""
        position = self.log.stat().st_size if self.log.exists() else 0
        code = self._start(name, **{**self._versions, **variables}).wait()
        output = self.log.read_bytes()[position:].decode(errors="replace")
        if code:
            raise LabError(f"The playbook {name} failed:\n{output[-3000:]}")
        return output

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
            self.lab.up(self.settings.nodes)
            self._make_builds_small()
        with self._timed("machine"):
            if not self._inventory:
                self._molecule("create")
                self._inventory = str(self._write_inventory())
            self.machine = Machine(self._inventory, HOST, Path(self._sockets.name))
            self._refuse_containers()
        self._serve()
        with self._timed("joining"):
            driver = {} if self.settings.real_kata else {"cgroupDriver": "cgroupfs"}
            join.join(self.lab, self.machine, self._registry, kubelet={**driver, **self.settings.kubelet})

    def _molecule(self, name: str) -> None:
        """Runs `molecule create` or `molecule destroy` for the machine of this run."""
        if name == "create":
            self._environment = {
                **vm.up(self._virtual),
                "MOLECULE_EPHEMERAL_DIRECTORY": str(self._scenario),
                "MOLECULE_MEMORY": str(self.settings.memory),
            }
        with self.log.open("ab") as log:
            done = subprocess.run(
                ["molecule", name],
                cwd=TOP,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        if name == "destroy":
            vm.down(self._virtual)
        if done.returncode:
            raise LabError(f"molecule {name} failed: see {self.log}.")

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
        """Lowers the requests of all builds to what the one real machine has, since capacity is judged by the builds that run."""
        config = self._worker_config()
        variables = yaml.safe_load(VARIABLES.read_text())
        if self._extra:
            variables |= yaml.safe_load(Path(self._extra).read_text()) or {}
        small = variables["executor_entry"]["options"]["kubernetes"]["resources"]
        config["executor"]["k8s-vm"]["options"]["kubernetes"]["resources"] = small
        self.lab.set_worker_config(yaml.safe_dump(config, sort_keys=False))

    def _serve(self) -> None:
        """Serves the release archives to this host and the images to the node."""
        (self._registry,) = free_ports(1)
        self.lab.process("registry").start([sys.executable, "-m", "lab.machines.registry", "--port", self._registry], cwd=TOP)
        variables = yaml.safe_load(mirror.start(self.lab.run_dir).read_text())
        # The node pulls the images from the registry.
        variables = {name: value for name, value in variables.items() if name not in ("images", "node_proof_image_archive")}
        variables["containerd_registry_mirrors"] = {name: [f"http://127.0.0.1:{self._registry}"] for name in MIRRORED}
        progress(f"Kata: {'the real release' if self.settings.real_kata else 'the stub of the mirror, whose shim is that of runc'}")
        if self.settings.real_kata:
            variables = {name: value for name, value in variables.items() if not name.startswith(("kata_", "node_proof_require"))}
        if directory := self.settings.release_directory:
            (port,) = free_ports(1)
            server = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", directory, port]
            self.lab.process("releases").start(server)
            variables["kata_base_url"] = f"http://127.0.0.1:{port}"
        variables |= release_variables(self.settings.real_kata)
        self._after = {"containerd_version": variables.pop("containerd_version")}
        self._versions = {"containerd_version": _pin(CONTAINERD_BEFORE)}
        (self.lab.directory / "e2e.json").write_text(json.dumps(variables))

    # The trace

    def _make_node(self) -> None:
        with self._timed("site, first run"):
            self._play("site")
        self._check("Kata's weightage is 0 after site", self._weightages()["k8s-kata"] == 0)
        self.watcher = BuildWatcher(self.lab)
        self.watcher.start()
        self.lab.start_builds(self.settings.builds_per_second, self.settings.init_seconds)

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
        self._check("the rollout has finished at its last step", rollout.returncode == 0 and record.get("phase") == "finished")
        if rollout.returncode:
            raise LabError(f"The rollout did not finish: {record.get('reason') or f'see {self.log}'}")
        self._show_trace()

    def _show_trace(self) -> None:
        if not self._weightages()["k8s-kata"]:
            self.lab.pin_builds("k8s-kata", 5)
        build = self._until("A build that has just begun on the machine", self._fresh_build, 600)
        pod = self.watcher.pods[build]
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        weightages = self._weightages()
        trace = json.loads(self.machine.run(f"bash -s -- {uid} {build}", stdin=(HERE / "trace.sh").read_bytes()))
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
            f"  executor    posted pod {name} as user {posted[0]['user']['username'] if posted else '?'}: "
            f"runtimeClassName {spec['runtimeClassName']},"
        )
        print(f"              affinity {term['key']} {term['operator']} {term['values']} (audit log, kubectl)")
        print(
            f"  API server  added overhead {json.dumps(spec['overhead'])} and nodeSelector {json.dumps(spec['nodeSelector'])} of the "
            "RuntimeClass (kubectl)"
        )
        print(f"  scheduler   {scheduled or 'no event'} (event)")
        print(f"  kubelet     cgroup of the sandbox {trace['cgroup']} (/proc)")
        print(f"  containerd  {trace['containerd']}, handler {trace['handler']} (crictl), runtime {trace['runtime']} (ctr)")
        print(f"  snapshot    {trace['snapshotter']} {trace['snapshot'][:12]} on {trace['device']}: {trace['table']} (ctr, dmsetup)")
        print(f"  shim        {trace['shim']} (/proc); kernel {trace['kernel']}, in the sandbox {trace['guest_kernel']} (uname)")
        print(f"  exit        {result} at {entry['ended']} (the worker's journal)")
        self._check(
            f"build {build}: the router picked k8s-kata and the worker posted its pod", entry["executor"] == "k8s-kata" and bool(posted)
        )
        self._check(f"build {build}: the scheduler chose {HOST}", f"to {HOST}" in scheduled)
        self._check(f"build {build}: it ran under handler kata by Kata's shim", trace["handler"] == "kata" and "/kata" in trace["shim"])
        on_pool = trace["snapshotter"] == "devmapper" and " thin " in f" {trace['table']} " and trace["pool"].strip("()") in trace["table"]
        self._check(f"build {build}: its root is a thin device of the pool", on_pool)
        # As the name of a slice of systemd it has underscores.
        self._check(f"build {build}: its sandbox is in the kubelet's cgroup of its pod", uid in trace["cgroup"].replace("_", "-"))
        if self.settings.real_kata:
            self._check(
                f"build {build}: the kernel in its sandbox is not the machine's", trace["guest_kernel"] not in ("", trace["kernel"])
            )
        self._check(f"build {build}: it has succeeded", result == "Succeeded")

    def _scheduled(self, pod: str) -> str:
        """The scheduler's event of a pod."""
        selector = f"involvedObject.name={pod},reason=Scheduled"
        return self.lab.kubectl("get", "events", "-n", NAMESPACE, "--field-selector", selector, "-o", "jsonpath={.items[*].message}")

    def _fresh_build(self) -> int | None:
        """A build that started a moment ago and runs for long, which its number decides."""
        now = time.time()
        for build in self.watcher.on(HOST, "Running"):
            started = self.watcher.pods[build]["status"]["containerStatuses"][0]["state"].get("running", {}).get("startedAt")
            if build % 5 >= 3 and started and now - _seconds(started) < 15:
                return build
        return None

    def _audit(self, verb: str) -> list[dict[str, t.Any]]:
        events = (json.loads(line) for line in self.lab.audit_log.read_text().splitlines())
        return [event for event in events if event["verb"] == verb and event["objectRef"].get("resource") == "pods"]

    # Fault injection

    def _site_again(self) -> None:
        with self._timed("site, second run"):
            running = self._builds_running(1)
            output = self._play("site")
        self._check("a second run of site, under builds, changes nothing", set(re.findall(r"changed=(\d+)", output)) == {"0"})
        self._check("the builds that ran meanwhile have succeeded", set(self._results(running).values()) == {"Succeeded"})

    def _roll_back(self) -> None:
        with self._timed("rollback while builds run"):
            running = self._builds_running(1)
            self._play("rollback")
        self._check("Kata's weightage is 0 after rollback", self._weightages()["k8s-kata"] == 0)
        self._check("the builds that ran on the node have succeeded after it", set(self._results(running).values()) == {"Succeeded"})

    def _upgrade(self) -> None:
        with self._timed("containerd upgraded while builds run"):
            # The only verified node is drained at weightage 0 alone, where builds are pinned to it.
            self.lab.pin_builds("k8s-kata", 1)
            running = self._builds_running(1)
            self._versions = self._after
            self._play("site")
        version = self.machine.run("containerd --version").split()[2].removeprefix("v")
        self._check(
            f"containerd went from {_pin(CONTAINERD_BEFORE)} to {version} by one variable", version == self._after["containerd_version"]
        )
        self._check("the builds that ran before have succeeded", set(self._results(running).values()) == {"Succeeded"})
        self._show_trace()

    def _power_cycle(self) -> None:
        with self._timed("power cycle while a rollout watches"):
            # More builds than fit into the time: without the machine there is no evidence.
            rollout = self._start("rollout", **self._versions, rollout_steps=[20], rollout_min_builds=20, rollout_timeout=90)
            self._builds_running(1)
            boot, over = self._boot_id(), set(self.watcher.journal())
            progress(f"FAULT: {HOST} is reset while builds {self.watcher.on(HOST, 'Running')} run on it")
            # As the reset button does: nothing is flushed, and the command gets no answer.
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(self.machine.command("echo b > /proc/sysrq-trigger"), timeout=20, capture_output=True, check=False)
            self._hit = [build for build in self.watcher.on(HOST) if build not in over]
            code = rollout.wait()
            record = self.lab.record()
            progress(f"The rollout is {record['phase']}: {record['reason']}")
            self._until(f"Another boot of {HOST}", lambda: self._boot_id() not in ("", boot), self.settings.ready_seconds)
            self._until("The kubelet of that boot, and its node Ready", self._is_ready_again, self.settings.ready_seconds)
            # Its node stays Ready for a while after the reset, so more builds are bound to it.
            later = [build for build in self.watcher.on(HOST) if build not in (*over, *self._hit)]
            progress(f"{HOST} is Ready again: it had builds {self._hit} when it was reset, and got {later} since")
        self._check("the rollout paused or rolled back by itself", code != 0 and record["phase"] in ("paused", "rolled_back"))
        self._check("the node booted again with its pool", self.machine.run("ctr plugins ls | grep devmapper").endswith("ok"))
        with self._timed("verify while builds start"):
            newest = max(self.watcher.pods)
            verify = self._start("verify", **self._versions)
            while verify.poll() is None:
                # Some run, and some start.
                if len(self.watcher.alive()) < 4:
                    self.lab.pin_builds("k8s-kata", 1)
                time.sleep(2)
            # An older one that waited for room may time out now.
            started = [build for build in self.watcher.on(HOST) if build > newest]
        self._check("verify verified the node again", verify.returncode == 0)
        results = self._results([*started, *later, *self._hit], self.settings.ready_seconds)
        self._check(
            f"the {len(started)} builds that were sent to the machine during verify have succeeded",
            bool(started) and all(results[build] == "Succeeded" for build in started),
        )
        if later:
            what = f"the {len(later)} that were bound to it during the reset have succeeded"
            self._check(what, all(results[build] == "Succeeded" for build in later))
        self._play("rollback")

    def _boot_id(self) -> str:
        """The machine's present boot; nothing where it does not answer."""
        self.machine.disconnect()
        return self.machine.run("cat /proc/sys/kernel/random/boot_id", check=False)

    def _is_ready_again(self) -> bool:
        reported = self.lab.kubectl("get", "node", HOST, "-o", "jsonpath={.status.nodeInfo.bootID}")
        return reported == self._boot_id() and join.is_ready(self.lab, HOST)

    def _remove(self) -> None:
        with self._timed("remove while builds run"):
            self.lab.pin_builds("k8s-kata", 2)
            running = self._builds_running(2)
            remove = self._start("remove", **self._versions)
            results = self._results(running)
            code = remove.wait()
        self._check("remove waited for the builds that ran, and all have succeeded", code == 0 and set(results.values()) == {"Succeeded"})
        left = self.machine.run(
            "ls -d /opt/kata /usr/local/bin/containerd /etc/containerd/config.toml; lvs --noheadings -o lv_name kata", check=False
        )
        self._check(f"the machine is as it was before site{f', but has {left}' if left else ''}", not left)

    def _count(self) -> None:
        progress("Waiting for the builds in flight")
        # The worker restarts one that found no room after its timeout.
        stats = self.lab.stop_builds(self.settings.init_seconds + 300)
        journal = self.watcher.journal()
        bound = self.watcher.on(HOST)
        print(f"Counted by the worker: {json.dumps(stats)}; builds on {HOST}: {len(bound)}")
        failed = [build for build, entry in journal.items() if entry["result"] == "Failed"]
        self._check("no build was lost", stats["lost"] == 0 and stats["wedged"] == 0 and stats["succeeded"] + len(failed) == stats["sent"])
        for build, entry in journal.items():
            if entry["result"] != "Succeeded":
                print(f"  {entry['result']}: {self._describe(build, entry)}")
        self._check("none failed but those that the machine had when it was reset", set(failed) <= set(self._hit))
        excluded = [build for build, entry in journal.items() if re.search("rhel6", entry["image"], re.IGNORECASE)]
        print(f"rhel6 builds: {len(excluded)}, of them on {HOST}: {len(set(excluded) & set(bound))}")
        self._check(f"no rhel6 build came to {HOST}", bool(excluded) and not set(excluded) & set(bound))

    def _describe(self, build: int, entry: dict[str, t.Any]) -> str:
        """How a build ended, by the last state of its pod."""
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
        progress("Removing the cluster and its machine")
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if hasattr(self, "machine"):
            self.machine.disconnect()
        self._sockets.cleanup()
        try:
            if not os.environ.get("KATA_NODE_INVENTORY") and self._scenario.exists():
                self._molecule("destroy")
        finally:
            self.lab.down()
            if hasattr(self, "watcher"):
                self.watcher.over.set()
                self.watcher.join(10)


def _pin(part: str) -> str:
    return next(one.version for one in NODE_PARTS if one.name == part).removeprefix("v")


def _seconds(stamp: str) -> float:
    return time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
