"""What the module writes and predicts, compared with Screwdriver's router from npm."""

from __future__ import annotations

import json
import math
import os
import subprocess
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import routing as _routing

from lab.cluster.lab import Lab
from lab.programs.npm import nodejs

if t.TYPE_CHECKING:
    from ..helpers import ModuleRunner

FILES = Path(__file__).parent / "files"
BUILDS = 10_000
SHARES = ["1", "2.5", "5", "10", "25", "33.33", "50", "75", "99", "100"]
EXCLUDED = ["registry.example/rhel6-tools:1", "REGISTRY.EXAMPLE/RHEL6:6.10"]
Case = dict[str, t.Any]


@pytest.fixture(scope="module")
def route(lab: Lab) -> t.Callable[[list[Case]], list[dict[str, int]]]:
    """Where the real router sends the builds of each case."""

    def ask(cases: list[Case]) -> list[dict[str, int]]:
        environment = {**os.environ, "NODE_PATH": str(Path(lab.settings["programs"]["worker"]) / "node_modules"), "LOG_LEVEL": "silent"}
        numbered = [{"builds": BUILDS, "seed": number + 1, **case} for number, case in enumerate(cases)]
        done = subprocess.run(
            [nodejs(), FILES / "route.js"], input=json.dumps(numbered), capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")).removeprefix("ANSWERS "))

    return ask


def within(count: int, share: float, sigmas: float) -> bool:
    return abs(count - BUILDS * share) <= sigmas * math.sqrt(BUILDS * share * (1 - share)) + 1e-9


def write(module: ModuleRunner, path: Path, share: str) -> dict[str, t.Any]:
    """What the module makes of the 2020 config for a share, as the worker reads it."""
    path.write_text((FILES / "config-2020.yaml").read_text())
    entry = {"pluginName": "k8s", "options": {"kubernetes": {"runtimeClass": "kata"}}}
    result = module(
        "executor_config",
        path=str(path),
        legacy_executor="k8s-vm",
        kata_share=share,
        exclusions=["rhel6"],
        executors={"k8s-kata": entry, "k8s": {"weightage": 0}},
    )
    assert result.get("failed") is None, result
    return yaml.safe_load(path.read_text())["executor"]


def test_shares_are_those_asked_for_and_excluded_images_stay(module: ModuleRunner, route: t.Any, tmp_path: Path) -> None:
    cases = []
    for share in SHARES:
        config = write(module, tmp_path / f"{share}.yaml", share)
        cases += [{"config": config, "image": image} for image in ("node:22", *EXCLUDED)]
    answers = iter(route(cases))
    for share in SHARES:
        plain, lower, upper = next(answers), next(answers), next(answers)
        assert within(plain.get("k8s-kata", 0), float(share) / 100, 3), f"{share} %: {plain}"
        assert sum(plain.values()) == BUILDS
        assert lower == upper == {"k8s-vm": BUILDS}, f"{share} %: {lower} {upper}"


ODD: dict[str, dict[str, t.Any]] = {
    "plain": {"plugin": "k8s-vm", "k8s": {"weightage": 10}, "k8s-vm": {"weightage": 90}},
    "strings": {"plugin": "k8s-vm", "k8s": {"weightage": "10"}, "k8s-vm": {"weightage": "90"}},
    "all on one": {"plugin": "k8s-vm", "k8s": {"weightage": 100}, "k8s-vm": {"weightage": 0}},
    "one without": {"plugin": "k8s-vm", "k8s": {"weightage": 10}, "k8s-vm": {}},
    "none has any": {"plugin": "k8s-vm", "k8s": {}, "k8s-vm": {}},
    "none has any, no default": {"k8s": {}, "k8s-vm": {}},
    "below one": {"plugin": "k8s-vm", "k8s": {"weightage": 0.1}, "k8s-vm": {"weightage": 0.9}},
    "fractions": {"plugin": "k8s-vm", "k8s": {"weightage": 10.5}, "k8s-vm": {"weightage": 89.5}},
    "percent signs": {"plugin": "k8s-vm", "k8s": {"weightage": "10%"}, "k8s-vm": {"weightage": "90%"}},
    "negative": {"plugin": "k8s-vm", "k8s": {"weightage": -10}, "k8s-vm": {"weightage": 90}},
    "excluded": {"plugin": "k8s-vm", "k8s": {"weightage": 10, "exclusions": ["node"]}, "k8s-vm": {"weightage": 90}},
    "the dead key": {"plugin": "k8s-vm", "k8s": {"weightage": 90, "exclusion": ["node"]}, "k8s-vm": {"weightage": 10}},
    "default excluded, others at 0": {"plugin": "k8s", "k8s": {"weightage": 100, "exclusions": ["NODE"]}, "k8s-vm": {"weightage": 0}},
    "invalid pattern": {"plugin": "k8s-vm", "k8s": {"weightage": 90, "exclusions": ["*node"]}, "k8s-vm": {"weightage": 10}},
    "string for a list": {"plugin": "k8s-vm", "k8s": {"weightage": 90, "exclusions": "node"}, "k8s-vm": {"weightage": 10}},
    "empty pattern": {"plugin": "k8s-vm", "k8s": {"weightage": 90, "exclusions": [""]}, "k8s-vm": {"weightage": 10}},
    "two of one plugin": {"plugin": "k8s", "k8s": {"weightage": 80}, "k8s-kata": {"pluginName": "k8s", "weightage": 20}},
    "no plugin of its name": {"plugin": "k8s", "k8s": {"weightage": 80}, "k8s-kata": {"weightage": 20}},
    "three": {
        "plugin": "k8s-vm",
        "k8s": {"weightage": 3},
        "k8s-vm": {"weightage": 2},
        "k8s-sandbox": {"pluginName": "k8s", "weightage": 5},
    },
}


def test_our_rules_are_the_routers(route: t.Any) -> None:
    image = "node:22"
    answers = route([{"config": config, "image": image} for config in ODD.values()])
    for (name, config), counts in zip(ODD.items(), answers, strict=True):
        for executor, share in _routing.shares(config, image).items():
            assert within(counts.get(executor, 0), float(share), 4), f"{name}: {executor} should get {float(share)}, got {counts}"
        assert sum(counts.values()) == BUILDS
