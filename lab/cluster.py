"""One lab: its processes, its users and what is in it at the start."""

from __future__ import annotations

import fcntl
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

from lab import fallback, fleet, pki
from lab.build import locked, node, say
from lab.paths import LABS, SOURCE
from lab.processes import LabError, Process, free_ports

# user: groups. `limited` is known and may do nothing; the worker may do what executor-k8s does.
USERS = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "kwok": "system:masters",
    "worker": "",
    "limited": "",
}
ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "builds")
NODES = 20
# A tenth of the worker's rabbitmq.initTimeout, as kwok's nodes are ten times faster than real ones.
INIT_SECONDS = 30


class Lab:
    """A lab by name. What it keeps is in ``directory`` and goes with it."""

    def __init__(self, name: str = "default") -> None:
        self.name = name
        self.directory = LABS / name
        self.kubeconfig = self.directory / "admin.kubeconfig"
        self.audit_log = self.directory / "audit.log"
        self.run = self.directory / "run"
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
        return Process(self.run, name)

    def token(self, user: str) -> str:
        return self.settings["tokens"][user]

    def is_up(self) -> bool:
        names = self.settings.get("processes", []) if self._settings.exists() else []
        return bool(names) and all(self.process(name).pid for name in names)

    def started(self) -> list[str]:
        """The names of all that was started: what others lean on comes first, kwok or hollow kubelets after the control plane."""
        names = {path.stem for path in self.run.glob("*.pid")}
        return sorted(names, key=lambda name: (ORDER.index(name if name in ORDER else "kwok"), name))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints, as the lab's administrator."""
        command = [self.settings["programs"]["kubectl"], "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    @contextmanager
    def held(self) -> t.Iterator[None]:
        """Keeps it for one demo or end-to-end run; a second one would come up on the same cluster and take its rollout for its own."""
        path = LABS / f"{self.name}.held"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as holder:
            try:
                fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder.seek(0)
                raise LabError(f"Lab {self.name} is held by process {holder.read()}, which runs on it: wait for its end.") from None
            holder.truncate(0)
            holder.write(str(os.getpid()))
            holder.flush()
            yield

    def up(self, nodes: int | None = None, control_plane: str | None = None) -> None:
        """Brings the lab up. One that is up is left alone; leftovers of one that crashed are cleared first."""
        with locked(LABS / f"{self.name}.lock"):
            if self.is_up():
                say(f"Lab {self.name} is up already")
                return
            self._down()
            programs = fallback.programs(control_plane)
            started = time.monotonic()
            try:
                self._prepare(programs)
                self._start_control_plane()
                if fallback.is_used(self):
                    say(fallback.LIMITS)
                    nodes = fallback.NODES if nodes is None else nodes
                else:
                    self._start_kwok()
                    nodes = NODES if nodes is None else nodes
                self._fill(nodes)
                self._save(processes=self.started(), nodes=nodes)
            except BaseException:
                self._down()
                raise
            say(f"Lab {self.name} is up with {nodes} build nodes after {time.monotonic() - started:.0f} s: KUBECONFIG={self.kubeconfig}")

    def down(self) -> None:
        with locked(LABS / f"{self.name}.lock"):
            self._down()
        (LABS / f"{self.name}.lock").unlink(missing_ok=True)

    def _down(self) -> None:
        for name in reversed(self.started()):
            # etcd's data goes with the lab, so it need not be asked nicely.
            self.process(name).stop(3 if name in ("builds", "kwok") else 0)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _save(self, **settings: t.Any) -> None:
        current = json.loads(self._settings.read_text()) if self._settings.exists() else {}
        draft = self._settings.with_suffix(".new")
        draft.write_text(json.dumps({**current, **settings}, default=str, indent=1))
        draft.replace(self._settings)

    def _prepare(self, programs: dict[str, Path]) -> None:
        self.run.mkdir(parents=True)
        self.directory.chmod(0o700)
        names = ("etcd", "peer", "api", "manager", "scheduler", "kwok", "builds")
        tokens = {user: secrets.token_hex(16) for user in USERS}
        self._save(programs=programs, ports=dict(zip(names, free_ports(len(names)), strict=True)), tokens=tokens)
        pki.write(self.directory / "pki")
        rows = [f'{tokens[user]},{user},{user},"{groups}"' for user, groups in USERS.items()]
        (self.directory / "tokens.csv").write_text("\n".join(rows) + "\n")
        for user in USERS:
            self.write_kubeconfig(self.directory / f"{user.removeprefix('system:')}.kubeconfig", tokens[user])

    def write_kubeconfig(self, path: Path, token: str) -> Path:
        """A kubeconfig of this lab with the token given."""
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

    def _start(self, name: str, *arguments: t.Any) -> None:
        more = fallback.FLAGS.get(name, ()) if fallback.is_used(self) else ()
        self.process(name).start([self.settings["programs"][name], *arguments, *more])

    def _start_control_plane(self) -> None:
        ports, pki_files = self.settings["ports"], self.directory / "pki"
        client, peer = (f"http://127.0.0.1:{ports[name]}" for name in ("etcd", "peer"))
        self._start(
            "etcd",
            f"--name={self.name}",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={self.name}={peer}",
            "--unsafe-no-fsync",
        )
        self._start(
            "kube-apiserver",
            f"--etcd-servers={client}",
            "--bind-address=127.0.0.1",
            f"--secure-port={ports['api']}",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--allow-privileged=true",
            f"--tls-cert-file={pki_files / 'apiserver.crt'}",
            f"--tls-private-key-file={pki_files / 'apiserver.key'}",
            f"--client-ca-file={pki_files / 'ca.crt'}",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={pki_files / 'sa.key'}",
            f"--service-account-key-file={pki_files / 'sa.pub'}",
            f"--audit-policy-file={SOURCE / 'audit-policy.yaml'}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-maxsize=1000",
        )
        self.wait_ready()
        manager = self.directory / "kube-controller-manager.kubeconfig"
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={manager}",
            "--leader-elect=false",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={pki_files / 'sa.key'}",
            f"--root-ca-file={pki_files / 'ca.crt'}",
            "--bind-address=127.0.0.1",
            f"--secure-port={ports['manager']}",
            f"--cert-dir={self.directory / 'manager'}",
        )
        self._start(
            "kube-scheduler",
            f"--kubeconfig={self.directory / 'kube-scheduler.kubeconfig'}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={ports['scheduler']}",
            f"--cert-dir={self.directory / 'scheduler'}",
        )

    def wait_ready(self, seconds: float = 180) -> None:
        """Until the API server says that it is ready."""
        context = ssl.create_default_context(cafile=str(self.directory / "pki" / "ca.crt"))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for name in ("etcd", "kube-apiserver"):
                if not self.process(name).pid:
                    raise LabError(f"{name} of lab {self.name} ended at its start: {self.process(name).tail(3)}")
            try:
                with urllib.request.urlopen(f"https://{self.server}/readyz", context=context, timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise LabError(f"The API server of lab {self.name} was not ready after {seconds:.0f} s: {self.process('kube-apiserver').tail(3)}")

    def _start_kwok(self, fault: bool = False) -> None:
        (self.directory / "stages.yaml").write_text(fleet.stages(fault))
        self._start(
            "kwok",
            f"--kubeconfig={self.directory / 'kwok.kubeconfig'}",
            f"--manage-nodes-with-label-selector={'='.join(fleet.PLAYED)}",
            f"--config={self.directory / 'stages.yaml'}",
            f"--server-address=127.0.0.1:{self.settings['ports']['kwok']}",
            "--node-lease-duration-seconds=40",
        )

    def fault(self, failed_starts: bool) -> None:
        """With failed_starts, the sandbox of every Kata pod that is not running yet fails, as a kubelet tells it."""
        if fallback.is_used(self):
            raise LabError(fallback.NO_FAULTS)
        # kwok reads its stages at its start only.
        self.process("kwok").stop(3)
        # They name the kwok that was; without them the next one takes the nodes over at once. One that runs would not get over their loss.
        self.kubectl("delete", "leases", "--all", "-n", "kube-node-lease")
        self._start_kwok(failed_starts)

    def _fill(self, nodes: int) -> None:
        manifests = (SOURCE / "manifests.yaml").read_text()
        deadline = time.monotonic() + 120
        while True:
            try:
                self.kubectl("apply", "--server-side", "-f", "-", stdin=manifests)
                break
            except LabError:
                # The default service account comes from the controller manager, some seconds after its start.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        ports = self.settings["ports"]
        config = (SOURCE / "worker" / "local.yaml").read_text()
        for mark, value in {"@HOST@": self.server, "@TOKEN@": self.token("worker"), "@API@": f"http://127.0.0.1:{ports['builds']}"}.items():
            config = config.replace(mark, value)
        worker = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "buildcluster-queue-worker", "namespace": "sd"},
            "data": {"local.yaml": config},
        }
        self.kubectl("create", "-f", "-", stdin=json.dumps(worker))
        say(f"Registering {nodes} build nodes")
        fleet.create(self, nodes)

    def start_builds(self, rate: float, init_seconds: float = INIT_SECONDS) -> None:
        """
        Starts the stand-in for Screwdriver's queue worker; it sends builds through the npm router until it is stopped.

        A build whose pod does not run after ``init_seconds`` is stopped and started again.
        """
        if fallback.is_used(self):
            raise LabError(fallback.NO_BUILDS)
        process = self.process("builds")
        if process.pid:
            raise LabError(f"Builds of lab {self.name} are flowing already: stop them with `python -m lab builds stop`.")
        programs = self.settings["programs"]
        process.start(
            [node(), SOURCE / "worker" / "worker.js"],
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
        """No new builds; waits for those in flight and returns the last figures."""
        process = self.process("builds")
        if pid := process.pid:
            os.kill(pid, 15)
            process.wait(seconds)
        process.stop()
        return self.stats()

    def pin_builds(self, executor: str, count: int) -> None:
        """Sends builds whose job asks for an executor by the annotation screwdriver.cd/executor."""
        url = f"http://127.0.0.1:{self.settings['ports']['builds']}/pinned?executor={executor}&count={count}"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10):
            pass

    def stats(self) -> dict[str, t.Any]:
        """The worker's figures: started, ended, failed, retried, lost, excluded_on_kata, executors."""
        path = self.directory / "builds" / "stats.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def memory(self) -> dict[str, int]:
        return {name: size for name in self.started() if (size := self.process(name).memory())}
