"""One lab: its processes, its users and its content at the start."""

from __future__ import annotations

import base64
import fcntl
import gzip
import json
import os
import secrets
import shutil
import ssl
import subprocess
import time
import typing as t
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import yaml

from lab.cluster import control_plane, kwok, pki
from lab.common import LABS, LabError, locked, progress
from lab.processes import Process, free_ports
from lab.programs.go import PARTS, compile_part
from lab.programs.npm import install_worker, nodejs

HERE = Path(__file__).parent
# user: groups. `limited` and `operator` are authenticated and have no permissions; the worker has those that executor-k8s needs.
USERS = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "kwok": "system:masters",
    "worker": "",
    "limited": "",
    "operator": "",
}
ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "builds")
NODES = 20
# A tenth of the worker's rabbitmq.initTimeout, since kwok's nodes are ten times faster than real ones.
INIT_SECONDS = 30
WORKER_CONFIG = ("configmap", "buildcluster-queue-worker", "-n", "sd")


class Lab:
    """A lab by name; its data is in ``directory``."""

    def __init__(self, name: str = "default") -> None:
        self.name = name
        self.directory = LABS / name
        self.kubeconfig = self.directory / "admin.kubeconfig"
        self.audit_log = self.directory / "audit.log"
        self.run_dir = self.directory / "run"
        self._settings = self.directory / "lab.json"

    @property
    def settings(self) -> dict[str, t.Any]:
        if not self._settings.exists():
            raise LabError(f"There is no lab named {self.name}: start it with `python -m lab up --name {self.name}`.")
        return json.loads(self._settings.read_text())

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.settings['ports']['api']}"

    def process(self, name: str) -> Process:
        return Process(self.run_dir, name)

    def token(self, user: str) -> str:
        return self.settings["tokens"][user]

    def is_up(self) -> bool:
        names = self.settings.get("processes", []) if self._settings.exists() else []
        return bool(names) and all(self.process(name).pid for name in names)

    def started(self) -> list[str]:
        """The names of all processes that were started, each after those it depends on."""
        names = {path.stem for path in self.run_dir.glob("*.pid")}
        return sorted(names, key=lambda name: (ORDER.index(name if name in ORDER else "kwok"), name))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs kubectl as the lab's administrator, and returns its output."""
        command = [self.settings["programs"]["kubectl"], "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    @contextmanager
    def held(self) -> t.Iterator[None]:
        """Locks it for one demo or end-to-end run; a second one would use the same cluster and take over its rollout."""
        path = LABS / f"{self.name}.held"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as holder:
            try:
                fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder.seek(0)
                raise LabError(f"Lab {self.name} is held by process {holder.read()}: wait until it has ended.") from None
            holder.truncate(0)
            holder.write(str(os.getpid()))
            holder.flush()
            yield

    def up(self, nodes: int = NODES, pace: float = 1) -> None:
        """Starts the lab. One that is up stays as it is; leftovers of a crashed one are removed first.

        Args:
            nodes: Simulated nodes.
            pace: How many times faster pods start and end than in stages.yaml.
        """
        with locked(LABS / f"{self.name}.lock"):
            if self.is_up():
                progress(f"Lab {self.name} is up already")
                return
            self._down()
            programs = _programs()
            started = time.monotonic()
            try:
                self._prepare(programs, pace)
                self._start_control_plane()
                self._start_kwok()
                self._fill(nodes)
                self._save(processes=self.started(), nodes=nodes)
            except BaseException:
                self._down()
                raise
            progress(
                f"Lab {self.name} is up with {nodes} build nodes after {time.monotonic() - started:.0f} s: KUBECONFIG={self.kubeconfig}"
            )

    def down(self) -> None:
        with locked(LABS / f"{self.name}.lock"):
            self._down()
        (LABS / f"{self.name}.lock").unlink(missing_ok=True)

    def _down(self) -> None:
        for name in reversed(self.started()):
            # etcd needs no clean shutdown: its data is removed with the lab.
            self.process(name).stop(3 if name in ("builds", "kwok") else 0)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _save(self, **settings: t.Any) -> None:
        current = json.loads(self._settings.read_text()) if self._settings.exists() else {}
        draft = self._settings.with_suffix(".new")
        draft.write_text(json.dumps({**current, **settings}, default=str, indent=1))
        draft.replace(self._settings)

    def _prepare(self, programs: dict[str, Path], pace: float) -> None:
        self.run_dir.mkdir(parents=True)
        self.directory.chmod(0o700)
        names = ("etcd", "peer", "api", "manager", "scheduler", "kwok", "builds")
        tokens = {user: secrets.token_hex(16) for user in USERS}
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._save(programs=programs, ports=ports, tokens=tokens, pace=pace)
        pki.write(self.directory / "pki")
        rows = [f'{tokens[user]},{user},{user},"{groups}"' for user, groups in USERS.items()]
        (self.directory / "tokens.csv").write_text("\n".join(rows) + "\n")
        for user in USERS:
            self.write_kubeconfig(self.directory / f"{user.removeprefix('system:')}.kubeconfig", tokens[user])

    def write_kubeconfig(self, path: Path, token: str) -> Path:
        """Writes a kubeconfig of this lab with the given token."""
        cluster = {"server": f"https://{self.server}", "certificate-authority": str(self.directory / "pki" / "ca.crt")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": "user"}}],
            "current-context": self.name,
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path

    def _start(self, name: str, arguments: list[str]) -> None:
        self.process(name).start([self.settings["programs"][name], *arguments])

    def _start_control_plane(self) -> None:
        ports = self.settings["ports"]
        self._start("etcd", control_plane.etcd(self.name, self.directory, ports))
        self._start("kube-apiserver", control_plane.kube_apiserver(self.directory, ports))
        self.wait_ready()
        self._start("kube-controller-manager", control_plane.kube_controller_manager(self.directory, ports))
        self._start("kube-scheduler", control_plane.kube_scheduler(self.directory, ports))

    def wait_ready(self, seconds: float = 180) -> None:
        """Waits until the API server reports that it is ready.

        Raises:
            LabError: It ended, or was not ready in time.
        """
        context = ssl.create_default_context(cafile=str(self.directory / "pki" / "ca.crt"))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for name in ("etcd", "kube-apiserver"):
                if not self.process(name).pid:
                    raise LabError(f"{name} of lab {self.name} ended when it started: {self.process(name).tail(3)}")
            try:
                with urllib.request.urlopen(f"https://{self.server}/readyz", context=context, timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise LabError(f"The API server of lab {self.name} was not ready after {seconds:.0f} s: {self.process('kube-apiserver').tail(3)}")

    def _start_kwok(self, fault: str = "none") -> None:
        stages = self.directory / "stages.yaml"
        stages.write_text(kwok.stages(fault, self.settings["pace"]))
        arguments = [
            f"--kubeconfig={self.directory / 'kwok.kubeconfig'}",
            f"--manage-nodes-with-label-selector={'='.join(kwok.SIMULATED)}",
            f"--config={stages}",
            f"--server-address=127.0.0.1:{self.settings['ports']['kwok']}",
            "--node-lease-duration-seconds=40",
        ]
        self._start("kwok", arguments)

    def restart_api_server(self) -> None:
        """Kills the API server where it runs, starts it again, and waits until it is ready."""
        server = self.process("kube-apiserver")
        server.kill()
        server.restart()
        self.wait_ready()
        # It would come back only after half a minute.
        self.process("kube-controller-manager").restart()
        # An interrupted kwok would wait until the leases of its nodes have expired.
        self.fault("none")

    def fault(self, kind: str) -> None:
        """What happens to build pods that do not run yet.

        Args:
            kind: ``failed-starts``: the sandbox of each one on Kata fails, as a kubelet reports it. ``all-starts-fail``: that of each one.
                ``slow-starts``: one on Kata takes some six times as long as on the legacy executor. ``none``: nothing of that.
        """
        # kwok reads its stages only when it starts.
        self.process("kwok").stop(3)
        # They name the old kwok; without them the new one takes the nodes over at once. A running one would not recover from their loss.
        self.kubectl("delete", "leases", "--all", "-n", "kube-node-lease")
        self._start_kwok(kind)

    def convert_nodes(self, count: int) -> list[str]:
        """Simulates the node part of site on the first ``count`` nodes, and returns their names."""
        return kwok.convert(self.kubeconfig, count)

    def revert_nodes(self, count: int) -> None:
        """Registers the first ``count`` nodes again, as they were at the start."""
        kwok.revert(self.kubeconfig, count)
        # A restarted kwok takes the leases of the new nodes over at once.
        self.fault("none")

    def worker_config(self) -> str:
        """The YAML text that the worker reads from its ConfigMap."""
        return self.kubectl("get", *WORKER_CONFIG, "-o", "jsonpath={.data.local\\.yaml}")

    def set_worker_config(self, text: str) -> None:
        """Replaces that text."""
        self.kubectl("patch", *WORKER_CONFIG, "--type=merge", "-p", json.dumps({"data": {"local.yaml": text}}))

    def record(self, name: str = "kata-rollout") -> dict[str, t.Any]:
        """The rollout's record, read with kubectl; empty where there is none."""
        text = self.kubectl("get", "configmap", name, "-n", "sd", "--ignore-not-found", "-o", "jsonpath={.data.record}")
        return json.loads(gzip.decompress(base64.b64decode(text))) if text else {}

    def _fill(self, nodes: int) -> None:
        manifests = (HERE / "manifests.yaml").read_text()
        deadline = time.monotonic() + 120
        while True:
            try:
                self.kubectl("apply", "--server-side", "-f", "-", stdin=manifests)
                break
            except LabError:
                # The controller manager creates the default service account some seconds after its start.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        ports = self.settings["ports"]
        config = (HERE / "worker" / "local.yaml").read_text()
        for mark, value in {"@HOST@": self.server, "@TOKEN@": self.token("worker"), "@API@": f"http://127.0.0.1:{ports['builds']}"}.items():
            config = config.replace(mark, value)
        worker = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "buildcluster-queue-worker", "namespace": "sd"},
            "data": {"local.yaml": config},
        }
        self.kubectl("create", "-f", "-", stdin=json.dumps(worker))
        progress(f"Registering {nodes} build nodes")
        kwok.create(self.kubeconfig, nodes)

    def start_builds(self, rate: float, init_seconds: float = INIT_SECONDS) -> None:
        """Starts the stub of Screwdriver's queue worker; it sends builds through the npm router until it is stopped.

        Args:
            rate: Builds a second.
            init_seconds: A build whose pod does not run after this time is stopped and started again.
        """
        process = self.process("builds")
        if process.pid:
            raise LabError(f"Builds of lab {self.name} are flowing already: stop them with `python -m lab builds stop`.")
        programs = self.settings["programs"]
        process.start(
            [nodejs(), HERE / "worker" / "worker.js"],
            env={
                "NODE_PATH": str(Path(programs["worker"]) / "node_modules"),
                "LAB_SERVER": self.server,
                "LAB_TOKEN": self.token("admin"),
                "LAB_API_PORT": str(self.settings["ports"]["builds"]),
                "LAB_BUILDS": str(self.directory / "builds"),
                "LAB_RATE": str(rate),
                "LAB_INIT_SECONDS": str(init_seconds),
                "NODE_TLS_REJECT_UNAUTHORIZED": "0",
                "LOG_LEVEL": "error",
            },
        )

    def stop_builds(self, seconds: float = 120) -> dict[str, t.Any]:
        """Sends no new builds, waits for those in flight, and returns the last figures."""
        process = self.process("builds")
        if pid := process.pid:
            os.kill(pid, 15)
            process.wait(seconds)
        process.stop()
        return self.stats()

    def pin_builds(self, executor: str, count: int) -> None:
        """Sends builds that are pinned to an executor by the annotation screwdriver.cd/executor."""
        url = f"http://127.0.0.1:{self.settings['ports']['builds']}/pinned?executor={executor}&count={count}"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10):
            pass

    def stats(self) -> dict[str, t.Any]:
        """The worker's figures: started, ended, failed, retried, lost, excluded_on_kata, executors."""
        path = self.directory / "builds" / "stats.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def memory(self) -> dict[str, int]:
        """Bytes of memory by process."""
        return {name: size for name in self.started() if (size := self.process(name).memory())}


def _programs() -> dict[str, Path]:
    """The path of every program of a lab by name, and ``worker``: the directory of the npm packages."""
    programs = {name: directory / name for part, directory in [(part, compile_part(part)) for part in PARTS] for name in part.programs}
    return programs | {"worker": install_worker()}
