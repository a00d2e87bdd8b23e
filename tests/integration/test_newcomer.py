"""A newcomer in an empty directory with the archive and pip, who types the commands of the quick start, which are taken from its text.

The hosts of the inventory are the reader's own, so its group is empty here; tests/node runs the node part of ``site``. kubernetes.core
comes from the tree that the other tests use, since a machine without Galaxy cannot download it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

from lab.cluster.lab import Lab
from lab.common import CACHE

from ..documents import GUIDES, TOP, commands_of, files_of

THIS = "tests/integration/test_newcomer.py"
GUIDE = GUIDES / "guide_quickstart.rst"
COLLECTIONS = ".ansible/collections/ansible_collections"
# What the collection has of each kind, by the directory of it.
KINDS = {"module": "plugins/modules", "filter": "plugins/filter", "callback": "plugins/callback"}
LIMIT_MB = 300


class Newcomer:
    """A shell that keeps its state between commands, with its own directory and home."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.home = directory / "empty", directory / "home"
        self.directory.mkdir()
        self.home.mkdir()
        self._state = directory / "state"
        # As after a login: nothing of the environment that runs the tests but where packages come from.
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_", "LANG", "LC_"))}
        python = Path(sys.base_prefix) / "bin"
        path = f"{python}:/usr/local/bin:/usr/bin:/bin"
        self._environment = {"HOME": str(self.home), "PATH": path, "PIP_CACHE_DIR": str(CACHE / "pip"), **kept}
        for settings in (".config/pip", ".pip"):
            if (Path.home() / settings).exists():
                (self.home / settings).parent.mkdir(parents=True, exist_ok=True)
                (self.home / settings).symlink_to(Path.home() / settings)

    def type(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs one line."""
        before = f". {self._state}\n" if self._state.exists() else ""
        script = f"{before}{command}\nstatus=$?\nexport -p >{self._state}.new\nexit $status"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.directory,
            env={**self._environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if not variables:
            Path(f"{self._state}.new").rename(self._state)
        return done

    def done(self, command: str) -> str:
        done = self.type(command)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        return done.stdout

    def refused(self, command: str, **variables: str) -> str:
        """The output of a line that fails."""
        assigned = "".join(f"export {name}={value}; " for name, value in variables.items())
        done = self.type(assigned + command, **variables)
        assert done.returncode, done.stdout
        return done.stdout


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    made = Newcomer(tmp_path)
    built = subprocess.run(
        [TOP / "tools/staged", "ansible-galaxy", "collection", "build", "--force", "--output-path", str(made.directory)],
        env={name: value for name, value in os.environ.items() if name != "KATA_TREE"} | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    shutil.copytree(Path(os.environ["KATA_TREE"]) / "ansible_collections/kubernetes/core", made.home / COLLECTIONS / "kubernetes/core")
    for name, text in files_of(GUIDE).items():
        (made.directory / name).write_text(text)
    inventory = yaml.safe_load((made.directory / "inventory.yml").read_text())
    assert set(inventory) == {"kata_nodes"}
    (made.directory / "inventory.yml").write_text(yaml.safe_dump({"kata_nodes": {**inventory["kata_nodes"], "hosts": {}}}))
    return made


@pytest.fixture
def cluster(lab: Lab, newcomer: Newcomer) -> t.Iterator[Lab]:
    """The lab with two verified nodes, and its kubeconfig where the guide says; afterwards it is as before."""
    (newcomer.home / ".kube").mkdir()
    shutil.copy(lab.kubeconfig, newcomer.home / ".kube/config")
    config = lab.kubectl("get", "configmap", "buildcluster-queue-worker", "-n", "sd", "-o", "json")
    lab.convert_nodes(2)
    yield lab
    lab.revert_nodes(2)
    lab.kubectl("delete", "configmap,lease", "kata-rollout", "-n", "sd", "--ignore-not-found")
    lab.kubectl("delete", "runtimeclass", "kata", "--ignore-not-found")
    lab.kubectl("replace", "--force", "-f", "-", stdin=config)


def has_message(output: str, message: str) -> bool:
    return message in " ".join(output.split())


@pytest.mark.playbooks
def test_the_quick_start(cluster: Lab, newcomer: Newcomer) -> None:
    commands = commands_of(GUIDE, THIS)
    libraries = next(number for number, command in enumerate(commands) if command.startswith("pip install -r "))
    first_playbook = next(number for number, command in enumerate(commands) if command.startswith("ansible-playbook "))
    for command in commands[:libraries]:
        newcomer.done(command)
    python = newcomer.directory / "kata/bin/python"
    root = newcomer.home / COLLECTIONS / "screwdriver/kata"
    said = newcomer.refused("ansible-playbook screwdriver.kata.status")
    assert "FAILED" in said or "fatal" in said
    assert "The controller lacks the Python libraries kubernetes, regress, tomli-w: run '" in said
    assert f"-m pip install -r {root}/requirements.txt'." in said
    for command in commands[libraries:first_playbook]:
        newcomer.done(command)

    # All that ansible-doc knows is documented.
    for kind, place in KINDS.items():
        names = [f"screwdriver.kata.{file.stem}" for file in sorted((root / place).glob("[!_]*.py"))]
        shown = re.sub(r"\x1b\[\d+m", "", newcomer.done(f"ansible-doc --type {kind} {' '.join(names)}"))
        assert re.findall(rf"^> {kind.upper()} (\S+)", shown, re.MULTILINE) == names
    listed = newcomer.done("ansible-doc --type role --list screwdriver.kata")
    assert {role.name for role in (root / "roles").iterdir()} - {"names"} <= {
        line.split()[0].strip(":").split(".")[-1] for line in listed.splitlines() if line
    }
    size = int(subprocess.run(["du", "-sm", newcomer.directory / "kata"], capture_output=True, text=True, check=True).stdout.split()[0])
    assert python.exists(), f"the environment of the controller has {size} MB"
    assert size <= LIMIT_MB, f"the environment of the controller has {size} MB"

    outputs = {command: newcomer.done(command) for command in commands[first_playbook:]}
    before, site, plan, status, rollback = outputs.values()
    rollback_command = list(outputs)[-1]
    assert "failures" not in "".join(outputs.values())
    assert "1 changed" not in before or "changed" in site
    assert "pilot" in plan
    assert "100 %" in plan
    assert status
    assert rollback
    assert cluster.kubectl("get", "runtimeclass", "kata", "-o", "jsonpath={.handler}") == "kata"

    # What else may be wrong is one sentence that names what to do.
    playbook = "ansible-playbook -i {} screwdriver.kata.rollout -e @vars.yml --check"
    no_inventory = newcomer.refused(playbook.format("hosts.yml"))
    assert f"The inventory {newcomer.directory}/hosts.yml does not exist: create it with your hosts in the group kata_nodes" in no_inventory
    no_file = newcomer.refused(playbook.format("inventory.yml"), K8S_AUTH_KUBECONFIG="/nowhere/config")
    assert "K8S_AUTH_KUBECONFIG names /nowhere/config, which does not exist: set it to the kubeconfig of the build cluster." in no_file
    text = (newcomer.home / ".kube/config").read_text()
    (newcomer.home / "other").write_text(text.replace(f"https://{cluster.server}", "https://127.0.0.1:1"))
    no_cluster = newcomer.refused(playbook.format("inventory.yml"), K8S_AUTH_KUBECONFIG=str(newcomer.home / "other"))
    assert has_message(no_cluster, "no answer from the API server at https://127.0.0.1:1. Check that it runs and can be reached.")
    no_number = newcomer.refused(playbook.format("inventory.yml") + " -e rollout_interval=soon")
    assert "argument 'rollout_interval' is of type str and we were unable to convert to int" in no_number
    slip = " is not a variable of screwdriver.kata: did you mean "
    no_variable = newcomer.refused(playbook.format("inventory.yml") + " -e rollout_stps=100")
    assert has_message(no_variable, f"rollout_stps{slip}rollout_steps? Nothing was changed.")
    newcomer.done(f"{rollback_command} -e rollout_stps=100")
    hosts = {"kata_nodes": {"hosts": {"build-1": {"kata_versoin": "4.2.0"}}}}
    (newcomer.directory / "slip.yml").write_text(yaml.safe_dump(hosts))
    no_variable = newcomer.refused("ansible-playbook -i slip.yml screwdriver.kata.site -e @vars.yml --check")
    assert has_message(no_variable, f"kata_versoin{slip}kata_version? Nothing was changed.")
    no_step = newcomer.refused(playbook.format("inventory.yml") + """ -e '{"rollout_steps": ["half"]}'""")
    assert has_message(
        no_step, "rollout_steps: half is not a share; use pilot, or a percentage above 0 and up to 100, such as [pilot, 1, 10, 100]."
    )
