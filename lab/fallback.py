"""The older control plane, from Debian's archive, where the Go module proxy cannot be reached; hollow kubelets play its nodes."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import tarfile
import time
import typing as t
import urllib.request

from lab.build import BuildError, ProxyUnreachableError, build_all, build_worker, go, locked, say
from lab.paths import BINARIES, CACHE
from lab.processes import LabError, free_ports

if t.TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lab.cluster import Lab

CHOICES = ("auto", "current", "debian")
VERSION = "v1.20.2"
NODES = 3
INSTEAD = f"The Go module proxy cannot be reached, so this lab gets the older control plane: Kubernetes {VERSION}, built from Debian's source package (once)."
LIMITS = (
    f"Hollow kubelets of Kubernetes {VERSION} play its nodes: they report no runtime handlers (require_handler finds none), "
    "start pods without the fleet's start times or faults, and end no build."
)
NO_FAULTS = (
    f"This lab has the older control plane (Kubernetes {VERSION}), whose hollow kubelets play no faults: use --control-plane current."
)
NO_BUILDS = f"This lab has the older control plane (Kubernetes {VERSION}), whose hollow kubelets end no build: use --control-plane current."

MIRROR = os.environ.get("KATA_DEBIAN_MIRROR", "http://deb.debian.org/debian").rstrip("/")
SOURCE = ("k/kubernetes/kubernetes_1.20.5+really1.20.2.orig.tar.gz", "b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc")
# The reflect2 in the source crashes when it is built with Go 1.18 or newer.
REFLECT2 = (
    "g/golang-github-modern-go-reflect2/golang-github-modern-go-reflect2-dev_1.0.2-2_all.deb",
    "af150a5172cf4c19bb321a53e67103e7fb18d07c1baa1e816a235155265d3948",
)
# machine: program: package and its digest
PACKAGES = {
    "x86_64": {
        "etcd": ("e/etcd/etcd-server_3.5.16-4_amd64.deb", "0875921bb0d023f2af9b8e15cdfbe417a03e65731345fb832c40f9c2dd72967b"),
        "kubectl": (
            "k/kubernetes/kubernetes-client_1.20.5+really1.20.2-1.1+deb12u1_amd64.deb",
            "087c42dc26c847740043cdaa8b16db666be5591a1da957f822922aa1b677494e",
        ),
    },
    "aarch64": {
        "etcd": ("e/etcd/etcd-server_3.5.16-4_arm64.deb", "5e21469a4f59f1cb2ed7af9c6eb9dda7d9734809c011cfa8a39b34f82a161a32"),
        "kubectl": (
            "k/kubernetes/kubernetes-client_1.20.5+really1.20.2-1.1+deb12u1_arm64.deb",
            "a80869df8ac3c5a5b17056a049a6b9b4ad9b521ff331d99d6362ee6a6fef6d02",
        ),
    },
}
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubemark")
TAGS = "providerless dockerless"
# A hollow kubelet listens everywhere, keeps its files in /tmp, and shares its runtime's socket with all others; ours keep to loopback and to a directory each.
PATCHES = (
    ("pkg/kubemark/hollow_kubelet.go", 'c.Address = "0.0.0.0"', 'c.Address = "127.0.0.1"'),
    ("pkg/kubemark/hollow_kubelet.go", 'MakeTempDirOrDie("hollow-kubelet.", "")', 'MakeTempDirOrDie("hollow-kubelet.", "/proc/self/cwd")'),
    ("pkg/kubelet/cri/remote/fake/endpoint.go", '"unix:///tmp/kubelet_remote.sock"', '"unix:///proc/self/cwd/runtime.sock"'),
)
# Without these the old programs listen on well-known ports as well, so that two labs would meet.
FLAGS = {"kube-apiserver": ("--insecure-port=0",), "kube-controller-manager": ("--port=0",), "kube-scheduler": ("--port=0",)}


def programs(control_plane: str | None) -> dict[str, Path]:
    """Every program's path by name, of the control plane asked for; ``auto`` is the current one where it can be had."""
    control_plane = control_plane or os.environ.get("KATA_CONTROL_PLANE") or "auto"
    if control_plane not in CHOICES:
        raise BuildError(f"The control plane {control_plane} is not known: give {', '.join(CHOICES[:-1])} or {CHOICES[-1]}.")
    if control_plane != "debian":
        try:
            return build_all()
        except ProxyUnreachableError:
            if control_plane == "current":
                raise
            say(INSTEAD)
    return {"worker": build_worker(), **build()}


def is_used(lab: Lab) -> bool:
    """Whether a lab has the older control plane."""
    return "kubemark" in lab.settings["programs"]


def packages() -> dict[str, tuple[str, str]]:
    """Debian's packages for this machine: path in the archive and digest, by the program that is taken from it."""
    if platform.machine() not in PACKAGES:
        raise BuildError(
            f"Debian's programs are pinned for {' and '.join(PACKAGES)}, not for {platform.machine()}: use --control-plane current."
        )
    return PACKAGES[platform.machine()]


def build() -> dict[str, Path]:
    """The older control plane's programs, built where they are not there yet."""
    pins = repr((SOURCE, REFLECT2, packages(), PROGRAMS, TAGS, PATCHES))
    directory = BINARIES / f"debian-{VERSION}-{hashlib.sha256(pins.encode()).hexdigest()[:8]}"
    with locked(BINARIES / "debian.lock"):
        if not directory.exists():
            work = CACHE / "debian-build"
            shutil.rmtree(work, ignore_errors=True)
            done = work / "programs"
            done.mkdir(parents=True)
            say(f"Building Kubernetes {VERSION} from Debian's source package (once; {', '.join(PROGRAMS)})")
            _build(work, done)
            done.rename(directory)
            _remove(work)
    return {name: directory / name for name in (*PROGRAMS, *packages())}


def _build(work: Path, done: Path) -> None:
    started = time.monotonic()
    for name, pin in packages().items():
        with _package(_fetch(work, pin)) as archive:
            _copy(archive, f"./usr/bin/{name}", done / name)
            (done / name).chmod(0o755)
    source = work / "gopath" / "src" / "k8s.io" / "kubernetes"
    source.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", _fetch(work, SOURCE), "--strip-components=1", "-C", source], check=True)
    reflect2 = source / "vendor" / "github.com" / "modern-go" / "reflect2"
    shutil.rmtree(reflect2)
    reflect2.mkdir()
    with _package(_fetch(work, REFLECT2)) as archive:
        for member in archive.getmembers():
            if "/modern-go/reflect2/" in member.name and member.isfile():
                _copy(archive, member.name, reflect2 / member.name.rsplit("/", 1)[1])
    for path, old, new in PATCHES:
        text = (source / path).read_text()
        assert text.count(old) == 1, f"{path} is not what it was"
        (source / path).write_text(text.replace(old, new))
    say(f"  source: {time.monotonic() - started:.0f} s")
    toolchain = go()
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GO")},
        **{
            "GOPATH": str(work / "gopath"),
            "GO111MODULE": "off",
            "GOTOOLCHAIN": "local",
            "GOCACHE": str(work / "gocache"),
            "CGO_ENABLED": "0",
        },
    }

    def run(*command: str) -> None:
        result = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, check=False)
        if result.returncode:
            raise BuildError(f"{' '.join(command[:2])} of Kubernetes {VERSION} failed:\n{result.stderr[-2000:]}")

    # The one generated file that the tarball has not.
    generator = str(work / "openapi-gen")
    run(toolchain, "build", "-o", generator, "./vendor/k8s.io/kube-openapi/cmd/openapi-gen")
    header = "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"
    report = str(work / "violations")
    target = ("-p", "k8s.io/kubernetes/pkg/generated/openapi", "-O", "zz_generated.openapi", "-h", header, "-r", report)
    run(generator, "-i", ",".join(_described(source)), *target)
    say(f"  openapi: {time.monotonic() - started:.0f} s")
    modules = ("component-base/version", "client-go/pkg/version")
    major, minor = VERSION.removeprefix("v").split(".")[:2]
    values = {"gitVersion": VERSION, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    variables = [f"-X k8s.io/kubernetes/vendor/k8s.io/{module}.{name}={value}" for module in modules for name, value in values.items()]
    for name in PROGRAMS:
        run(
            toolchain,
            "build",
            "-trimpath",
            "-tags",
            TAGS,
            "-ldflags",
            " ".join(["-s", "-w", *variables]),
            "-o",
            str(done / name),
            f"./cmd/{name}",
        )
        say(f"  {name}: {time.monotonic() - started:.0f} s")


def _described(source: Path) -> Iterable[str]:
    """The import paths of the packages whose types the API describes."""
    found = set()
    for top in ("pkg", "staging/src/k8s.io", "cmd", "plugin"):
        for path in (source / top).rglob("*.go"):
            relative = path.relative_to(source).as_posix()
            if re.search(r"_test\.go$|/testdata/|^staging/src/k8s\.io/(code-generator|sample-apiserver)/", relative):
                continue
            if b"+k8s:openapi-gen=" in path.read_bytes():
                found.add("k8s.io/kubernetes/" + re.sub("^staging/src/", "vendor/", relative.rsplit("/", 1)[0]))
    return sorted(found)


def _fetch(work: Path, pin: tuple[str, str]) -> Path:
    """A file of Debian's archive, with the digest that it must have."""
    path, digest = pin
    url = f"{MIRROR}/pool/main/{path}"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read()
    except OSError as exc:
        raise BuildError(
            f"{url} cannot be had ({exc}): set KATA_DEBIAN_MIRROR to a mirror of Debian that can be reached and run again."
        ) from exc
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise BuildError(
            f"{url} has the SHA-256 digest {found}, not {digest}: set KATA_DEBIAN_MIRROR to a mirror of Debian that has the right file."
        )
    target = work / path.rsplit("/", 1)[1]
    target.write_bytes(content)
    return target


def _package(path: Path) -> tarfile.TarFile:
    """The files of a Debian package, which is an ar archive around tar archives."""
    content = path.read_bytes()
    position = len(b"!<arch>\n")
    while position < len(content):
        name, size = content[position : position + 16].decode().strip(" /"), int(content[position + 48 : position + 58])
        position += 60
        if name.startswith("data.tar"):
            return tarfile.open(fileobj=io.BytesIO(content[position : position + size]))
        position += size + size % 2
    raise BuildError(f"{path.name} is no Debian package: it has no data.tar.")


def _copy(archive: tarfile.TarFile, member: str, target: Path) -> None:
    stream = archive.extractfile(member)
    assert stream, f"{member} is no file"
    target.write_bytes(stream.read())


def _remove(work: Path) -> None:
    # Go keeps some of what it writes read-only.
    for path in [work, *work.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(work)


def create(lab: Lab, nodes: list[dict[str, t.Any]]) -> None:
    """Starts a hollow kubelet for each node, and waits until all have registered themselves."""
    for node, port in zip(nodes, free_ports(len(nodes)), strict=True):
        name, labels = node["metadata"]["name"], node["metadata"]["labels"]
        own = lab.run / name
        own.mkdir()
        command = [
            lab.settings["programs"]["kubemark"],
            "--morph=kubelet",
            f"--name={name}",
            f"--kubeconfig={lab.directory / 'kwok.kubeconfig'}",
            f"--kubelet-port={port}",
            "--kubelet-read-only-port=0",
            f"--node-labels={','.join(f'{key}={value}' for key, value in labels.items() if 'kubernetes.io/' not in key)}",
            f"--register-with-taints={','.join('{key}={value}:{effect}'.format(**taint) for taint in node['spec']['taints'])}",
        ]
        lab.process(name).start(command, cwd=own)
    missing = {node["metadata"]["name"] for node in nodes}
    deadline = time.monotonic() + 120
    while missing:
        for name in sorted(missing):
            if not lab.process(name).pid or time.monotonic() > deadline:
                raise LabError(f"The hollow kubelet of {name} in lab {lab.name} did not register: {lab.process(name).tail(3)}")
        time.sleep(0.2)
        missing -= set(lab.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split())
