"""What goes wrong while the roles run: mirrors fail, runs are killed, containerd or an administrator refuses a configuration."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import threading
import typing as t

from lab.machines.registry import Handler as RegistryHandler
from lab.machines.registry import Images

from ..helpers import default
from .helpers import CONTAINERD, END_PODS, KATA, NODE_ROLES, STUBS, image, pod, refusals, started, state_with_times, versions

if t.TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Mirror, Roles

RESTART = "screwdriver.kata.containerd : Start containerd, or restart it after a change"
# Stands before a program of the machine, and kills the script that called it.
KILLER = "printf '#!/bin/sh\\n{1}\\nkill -9 $PPID\\n' >/usr/local/bin/{0}; chmod 755 /usr/local/bin/{0}"
# After the program has done its work, or before it where nothing would be left to do.
AFTER, BEFORE = '/usr/bin/{0} "$@"', ":"


def test_mirror_that_fails(roles: Roles, mirror: Mirror) -> None:
    base = f"http://127.0.0.1:{mirror.port}"
    files = {path.name: path.relative_to(mirror.directory / "files") for path in (mirror.directory / "files").rglob("*") if path.is_file()}
    kata, crictl = f"kata-static-{KATA}-amd64.tar.zst", next(name for name in files if name.startswith("crictl"))
    archives = {
        "containerd": f"containerd-{CONTAINERD}-linux-amd64.tar.gz",
        "runc": "runc.amd64",
        "cni": f"cni-plugins-linux-amd64-v{default('containerd', 'containerd_cni_version')}.tgz",
    }
    digest = mirror.variables()["kata_checksums"][kata]
    cases = [
        ("containerd", {}, "containerd", "404", archives["containerd"], "containerd", "HTTP Error 404: Not Found"),
        ("containerd", {}, "runc", "500", archives["runc"], "containerd_runc", "HTTP Error 500: Internal Server Error"),
        ("containerd", {}, "cni", "hang", archives["cni"], "containerd_cni", "Connection failure: timed out"),
        ("crictl", {}, "crictl", "hang", crictl, "crictl", "Connection failure: timed out"),
        ("kata", {}, "kata", "truncated", kata, "kata", None),
        ("kata", {"kata_checksums": {kata: "0" * 64}}, "kata", "", kata, "kata", f"its SHA-256 is {digest}, not {'0' * 64}"),
    ]
    before = state_with_times(roles.node)
    # A cache for each, since the archives that can be downloaded are kept.
    asked = [
        (role, mirror.variables(part, fault=fault) | variables | {f"{role}_cache": str(roles.cache / str(number))}, {})
        for number, (role, variables, part, fault, *_rest) in enumerate(cases)
    ]
    message = refusals(roles, asked)
    for sentence, (_role, _variables, _part, fault, name, option, reason) in zip(message, cases, strict=True):
        url = f"{base}/fault-{fault}/{files[name]}" if fault else f"{base}/{files[name]}"
        start, end = f"{url} could not be downloaded to localhost: ", f". Fix that, or set {option}_base_url to a mirror that has it."
        assert sentence.startswith(start), sentence
        assert sentence.endswith(end), sentence
        assert reason is None or sentence == start + reason + end
    assert state_with_times(roles.node) == before


def test_killed_in_every_phase(roles: Roles, mirror: Mirror) -> None:
    """Each run resumes where the one before was killed with kill -9; the last one is let through."""
    phases = {
        "containerd": (
            "Install the release",
            "Write the configuration",
            "Start containerd, or restart it after a change",
        ),
        "crictl": ("Install the release", "Check that the CRI answers", "Configure the socket of the CRI"),
        "kata": ("Install the release", "Write the configuration of each handler", "Switch /opt/kata and load the kernel modules"),
    }
    image(roles)
    for role, tasks in phases.items():
        # The mirror hangs, so that the first run is killed with its download under way.
        killed(roles, role, "Install the release", **mirror.variables(role, fault="hang"))
        for task in tasks:
            killed(roles, role, task)
            assert roles.node.run("[ ! -e /opt/kata ] || cat /opt/kata/VERSION") in ("", KATA)
        if role == "containerd":
            # crictl configures a socket only once the CRI answers there. The kill may have come after the start.
            roles.changes(role)
    assert roles.changes(*NODE_ROLES, kata_handlers=STUBS)
    assert versions(roles.node) == (CONTAINERD, KATA)
    since = started(roles.node)
    assert roles.changes(*NODE_ROLES, kata_handlers=STUBS) == []
    assert started(roles.node) == since
    pod(roles.node, "stub")


def killed(roles: Roles, role: str, task: str, **variables: t.Any) -> None:
    process = roles.start(role, killed_at=task, **variables)
    out, _err = process.communicate()
    assert process.returncode == -9, out
    assert f" : {task}]" in out, out


def test_machine_that_dies(roles: Roles) -> None:
    """What the roles run on the machine ends in its middle."""
    node = roles.node
    for role, programs in {"containerd": {"tar": AFTER, "systemctl": AFTER}, "kata": {"tar": AFTER, "mv": BEFORE}}.items():
        for program, work in programs.items():
            node.run(KILLER.format(program, work.format(program)))
            results = roles.run(role)
            node.run(f"rm -f /usr/local/bin/{program}")
            assert results[-1]["failed"], results[-1]
        assert roles.changes(role)
        assert roles.changes(role) == []
    assert versions(node) == (CONTAINERD, KATA)


def test_configuration(roles: Roles, mirror: Mirror) -> None:
    node = roles.node
    image(roles)
    assert roles.changes("containerd", "crictl")
    _nofile, pid, _runtime = pod(node, "runc")
    since = started(node)

    def untouched() -> bool:
        """The pod runs, in a containerd that did not start again."""
        return started(node) == since and node.run(f"cat /proc/{pid}/comm") == "sleep"

    # A running pod survives a second run, a candidate that containerd refuses, and a change that wants a restart.
    assert roles.changes("containerd", "crictl") == []
    assert untouched()
    config = "stat -c %y /etc/containerd/config.toml; cat /etc/containerd/config.toml"
    before = node.run(config)
    nonsense = {"plugins": {"io.containerd.cri.v1.runtime": {"nonsense": 1}}}
    message = roles.refusal("containerd", containerd_extra_config=nonsense)
    assert message.startswith("/opt/containerd-releases/"), message
    assert "/bin/containerd refuses the new configuration, and the old one stays: " in message, message
    assert node.run(config) == before
    assert untouched()
    asked = {
        "containerd_sandbox_image": "registry.example.com/pause:1",
        "containerd_registry_mirrors": {"docker.io": [f"http://127.0.0.1:{mirror.port}"]},
    }
    assert roles.refusal("containerd", **asked) == (
        "containerd on node1 must restart, but 2 containers are running. Drain the node and run again, or set "
        "containerd_restart_with_builds. Until then the old configuration is in use."
    )
    assert untouched()
    # What a refused run left behind is noticed by the next one.
    assert RESTART in roles.changes("containerd", **asked, containerd_restart_with_builds=True)
    assert not untouched()
    assert node.run(f"cat /proc/{pid}/comm") == "sleep"
    assert node.run("crictl exec $(crictl ps -q) sh -c 'echo lives'") == "lives"
    assert roles.changes("containerd", **asked) == []
    # containerd asks the mirror that hosts.toml names.
    with node.tunnel(mirror.port):
        node.run("crictl pull docker.io/library/nothing:1", check=False)
    assert any("/v2/library/nothing/manifests/1?ns=docker.io" in line for line in mirror.requests())
    node.run(END_PODS)
    # What a power cut leaves of CNI's results goes at the next start: no sandbox can be removed with it.
    node.run("mkdir -p /var/lib/cni/results && cd /var/lib/cni/results && touch empty && echo {} >whole && systemctl restart containerd")
    assert node.run("ls /var/lib/cni/results; rm -r /var/lib/cni") == "whole"


# Stubs of two registries: on the node their names lead to a server of the test, whose certificate the node trusts.
REGISTRIES = ("registry-1.docker.io", "registry.example.com")
REACHED = """
update-ca-certificates >/dev/null 2>&1
echo '127.0.0.1 {names}' >>/etc/hosts
systemd-run --quiet --unit test-registry systemd-socket-activate --listen 127.0.0.1:443 /lib/systemd/systemd-socket-proxyd 127.0.0.1:{port}
"""


def test_mirrors_that_do_not_have_the_image(roles: Roles, mirror: Mirror, tmp_path: Path) -> None:
    """After a mirror that is down and one without the image containerd asks the registry itself, Docker Hub by the name that it has."""
    node = roles.node
    names = ",".join(f"DNS:{name}" for name in REGISTRIES)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=test", "-addext", f"subjectAltName={names}"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    RegistryHandler.images = Images()
    registry = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RegistryHandler)
    registry.socket = context.wrap_socket(registry.socket, server_side=True)
    threading.Thread(target=registry.serve_forever, daemon=True).start()
    port = registry.server_address[1]
    trusted = {"src": str(certificate), "dest": "/usr/local/share/ca-certificates/test.crt"}
    (copied,) = node.play([{"ansible.builtin.copy": trusted}])
    assert not copied["failed"], copied
    node.run(REACHED.format(names=" ".join(REGISTRIES), port=port))
    mirrors = ["http://127.0.0.1:9", f"http://127.0.0.1:{mirror.port}"]
    roles.changes("containerd", "crictl", containerd_registry_mirrors={"docker.io": mirrors, "_default": mirrors})
    images = ("docker.io/library/nothing:1", "registry.example.com/tools/nothing:1")
    with node.tunnel(mirror.port, port):
        node.run("; ".join(f"crictl pull {image} || exit 1" for image in images))
    registry.shutdown()
    held = node.run("crictl images --output json")
    assert all(image in held for image in images)
    asked = [line for line in mirror.requests() if line.split()[1].startswith("/v2/") and " 404 " in line]
    for path in ("/v2/library/nothing/manifests/1?ns=docker.io", "/v2/tools/nothing/manifests/1?ns=registry.example.com"):
        assert any(path in line for line in asked), path
