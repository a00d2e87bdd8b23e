"""The effective config compared with node-config, js-yaml, JSON5 and the router from npm, on generated and on chosen workers."""

from __future__ import annotations

import json
import math
import os
import random
import re
import resource
import subprocess
import sys
import typing as t
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from ansible_collections.screwdriver.kata.plugins.module_utils import _javascript
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import routing, tree, worker
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.document import Document, same
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.worker import Environment

from lab.programs.npm import install_worker, nodejs

FILES = Path(__file__).parent / "files"
WORKERS = int(os.environ.get("KATA_GENERATED_WORKERS", "500"))
BUILDS = 1000
Case = dict[str, t.Any]


def node(script: Path | str, given: t.Any) -> t.Any:
    """The answers of a script that has the worker's packages."""
    environment = {"PATH": os.environ["PATH"], "NODE_PATH": str(install_worker() / "node_modules"), "LOG_LEVEL": "silent"}
    command = [nodejs(), str(script)] if isinstance(script, Path) else [nodejs(), "-e", script]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")).removeprefix("ANSWERS "))


def variables() -> dict[str, t.Any]:
    """Our map of variables in the form of the worker's custom-environment-variables."""
    result: dict[str, t.Any] = {}
    for variable, path in worker.variables():
        value: t.Any = {"__name": variable, "__format": "json"} if path.rsplit(".", 1)[-1] in worker._JSON_KEYS else variable
        result = worker.merged(result, worker.nested(path, value))
    return result


def ask(cases: list[Case]) -> list[dict[str, t.Any]]:
    full = [{"name": "local.yaml", "environment": {}, "image": "node:22", "builds": BUILDS, **case} for case in cases]
    return node(FILES / "effective.js", {"shipped": worker.SHIPPED, "variables": variables(), "cases": full})


def within(count: int, share: float) -> bool:
    """Whether the router's draw is within 3 standard deviations. It takes equal steps through [0, 1), so chance has no part in it."""
    return abs(count - BUILDS * share) <= 3 * math.sqrt(BUILDS * share * (1 - share))


# Generated workers

WEIGHTS: list[t.Any] = [0, 1, 5, 10, 50, 90, 100, "10", "90", "10%", 0.5, 33.3, "1_000", 1000, float("inf"), -5, None, "", True, "0x10"]
IMAGES = ["node:22", "registry.example/rhel6-tools:1", "X"]
PATTERNS: list[t.Any] = [[], ["rhel6"], ["node"], ["NODE:2."], ["*bad"], "rhel6", ["(?i:x)"], [""], ["^node:22$", "x"], [7], None]
NAMES = ["k8s", "k8s-vm", "k8s-kata", "k8s-sandbox", "other"]


def options(rng: random.Random) -> dict[str, t.Any]:
    kubernetes: dict[str, t.Any] = {"jobsNamespace": rng.choice(["sd", "builds"]), "host": "kubernetes.default"}
    if rng.random() < 0.5:
        kubernetes["resources"] = {"cpu": {"low": rng.choice([1, 2, "4"])}}
    if rng.random() < 0.3:
        kubernetes["annotations"] = {"a/b": rng.choice(["on", "yes", "1e3", "0o17", "007", "1:30", "null", "~", "é", "a: b", "#x", ""])}
    return {"kubernetes": kubernetes, "prefix": rng.choice(["", "x-"])}


def generate(seed: int) -> Case:
    """A worker: a file in one of several hands' style, variables and NODE_CONFIG."""
    rng = random.Random(seed)
    section: dict[str, t.Any] = {"plugin": rng.choice(["k8s", "k8s-vm", "k8s-kata"])} if rng.random() < 0.9 else {}
    for name in rng.sample(NAMES, rng.randint(1, 5)):
        entry: dict[str, t.Any] = {}
        if rng.random() < 0.85:
            entry["weightage"] = rng.choice(WEIGHTS)
        if name in ("k8s-kata", "other") and rng.random() < 0.85:
            entry["pluginName"] = "k8s"
        if rng.random() < 0.35:
            entry["exclusions"] = rng.choice(PATTERNS)
        if rng.random() < 0.7:
            entry["options"] = options(rng)
        section[name] = entry
    document = {"executor": section, "rabbitmq": {"host": "mq", "prefetchCount": "20"}}
    environment: dict[str, str] = {}
    for variable in ("WEIGHT_K8S", "WEIGHT_K8S_VM"):
        if rng.random() < 0.2:
            environment[variable] = rng.choice(["0", "25", "75", "10%", "", " 5 ", "1e1"])
    if rng.random() < 0.15:
        environment["EXECUTOR_PLUGIN"] = rng.choice(["k8s", "k8s-vm", ""])
    if rng.random() < 0.2:
        environment["K8S_NODE_SELECTORS"] = rng.choice(['{"a": "b"}', "{a: 'b',}", ""])
    if rng.random() < 0.2:
        over = {name: {"weightage": rng.choice([0, 30, "70"])} for name in rng.sample(NAMES, 2)}
        environment["NODE_CONFIG"] = rng.choice([json.dumps({"executor": over}), "{broken", json.dumps({"rabbitmq": {"host": "x"}})])
    return {"file": written(document, rng), "environment": environment, "image": IMAGES[seed % len(IMAGES)]}


def written(document: dict[str, t.Any], rng: random.Random) -> str:
    """The document as text: plain, indented otherwise, in braces, with anchors, aliases and merge keys, with other line ends."""
    style = rng.choice(["plain", "wide", "flow", "alias", "merge", "merge", "comments"])
    section = document["executor"]
    entries = [name for name in section if name != "plugin" and section[name]]
    if style == "flow":
        text = yaml.safe_dump(document, sort_keys=False, default_flow_style=True, width=10000, allow_unicode=True)
    elif style == "alias" and entries:
        shared = section[entries[0]]
        document["executor"] = {**section, "copy": shared, **({entries[-1]: shared} if len(entries) > 1 else {})}
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    elif style == "merge" and entries:
        base = yaml.safe_dump({"x-base": section[entries[0]]}, sort_keys=False, allow_unicode=True).replace("x-base:", "x-base: &base", 1)
        text = base + "executor:\n"
        for name, entry in section.items():
            if not isinstance(entry, dict) or not entry:
                text += f"  {name}: {json.dumps(entry)}\n"
                continue
            own = "".join(f"    {key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in entry.items() if key != "options")
            text += f"  {name}:\n    <<: *base\n{own}".replace("Infinity", ".inf")
        text += "rabbitmq: {host: mq, prefetchCount: '20'}\n"
    else:
        text = yaml.safe_dump(document, sort_keys=False, indent=4 if style == "wide" else 2, allow_unicode=True)
    if style == "comments":
        lines = [f"{line}  # {number}" if not line.rstrip().endswith(("|", ">")) else line for number, line in enumerate(text.splitlines())]
        text = "# head\n\n" + "\n".join(lines) + rng.choice(["\n", "", "\n# tail\n"])
    if rng.random() < 0.15:
        text = text.replace("\n", "\r\n")
    return ("\ufeff" if rng.random() < 0.1 else "") + text


def plain(value: t.Any) -> t.Any:
    """A value as JSON carries it: what is not finite is null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@pytest.fixture(scope="module")
def workers() -> list[tuple[Case, dict[str, t.Any]]]:
    cases = [generate(seed) for seed in range(WORKERS)]
    return list(zip(cases, ask(cases), strict=True))


def effective(case: Case) -> dict[str, t.Any]:
    return worker.effective(Document(case["file"], "text").plain().get("executor") or {}, Environment(case["environment"]))


def test_the_effective_config_is_what_node_config_makes_of_generated_workers(workers: list[tuple[Case, dict[str, t.Any]]]) -> None:
    for case, answer in workers:
        assert "error" not in answer, (case, answer)
        ours = effective(case)
        assert same(plain(ours), answer["executor"]), case
        assert list(ours) == list(answer["executor"])


def test_shares_of_generated_workers_are_the_routers(workers: list[tuple[Case, dict[str, t.Any]]]) -> None:
    for case, answer in workers:
        shares = routing.shares(effective(case), case["image"])
        loaded = routing.loaded(effective(case))
        for name, share in shares.items():
            picked = answer["counts"].get(name if name in loaded else "none", 0)
            assert within(picked, float(share)), (case, name, float(share), answer["counts"])


def test_a_write_changes_only_what_was_asked_of_generated_workers() -> None:
    texts = []
    wanted = []
    for seed in range(WORKERS):
        case = generate(seed)
        rng = random.Random(seed)
        document = Document(case["file"], "text")
        before = document.plain()
        name = rng.choice([key for key in before["executor"] if key != "plugin"])
        changes: dict[str, t.Any] = {
            "plugin": "k8s-vm",
            name: {"weightage": rng.randint(0, 100), "exclusions": ["rhel6", "^a:b$"]},
            "k8s-new": {"pluginName": "k8s", "options": {"kubernetes": {"runtimeClass": "kata", "nodeSelectors": {"dedicated": "kata"}}}},
        }
        if not isinstance(before["executor"][name], dict):
            continue
        document.merge({"executor": changes})
        texts.append(document.text())
        wanted.append(worker.merged(before, {"executor": worker.merged(before["executor"], changes)}))
        unchanged(case["file"], document.text(), name)
    script = """const yaml = require('js-yaml');
        const texts = JSON.parse(require('fs').readFileSync(0, 'utf8'));
        console.log('ANSWERS ' + JSON.stringify(texts.map(text => yaml.load(text.replace(/^\\uFEFF/, '')))));"""
    for text, ours, theirs in zip(texts, wanted, node(script, texts), strict=True):
        assert same(plain(ours), theirs), text
    assert len(texts) > WORKERS * 0.9


def unchanged(before: str, after: str, name: str) -> None:
    """Line ends, byte order mark and the spelling of every other value stay, and so does every other line."""
    assert before.startswith("\ufeff") == after.startswith("\ufeff")
    assert ("\r\n" in before) == ("\r\n" in after)
    if "\r\n" in before:
        assert "\n" not in after.replace("\r\n", "")
    spelled = dict(spellings(after))
    for path, text in spellings(before):
        if path[:2] != ("executor", "plugin") and path[:3] not in [("executor", name, key) for key in ("weightage", "exclusions")]:
            assert spelled[path] == text, (path, before, after)
    if "{executor" in before:
        return
    lines = iter(after.splitlines())
    for line in before.splitlines():
        asked = re.match(r"\s*(plugin:|weightage:|exclusions:|- |<<: \*base$|[\w-]+: (\{\}|null|[*&]id\d+$))", line)
        # The lines stay in their order.
        assert asked or line in lines, (line, before, after)


def spellings(text: str) -> t.Iterator[tuple[tuple[str, ...], str]]:
    """The path and the text of each scalar that is written out in a document."""
    text = text.removeprefix("\ufeff")

    def visit(node: tree.Node, path: tuple[str, ...]) -> t.Iterator[tuple[tuple[str, ...], str]]:
        for key, value in node.pairs:
            yield from visit(value, (*path, tree.key_of(key)))
        for number, item in enumerate(node.items):
            yield from visit(item, (*path, str(number)))
        if node.kind == "scalar":
            yield path, text[node.start : node.end]

    if root := tree.parse_yaml(text):
        yield from visit(root, ())


# Chosen workers

CHOSEN: dict[str, Case] = {
    "the file": {"file": "executor: {plugin: k8s, k8s: {weightage: 1}}"},
    "no file": {"file": None},
    "a variable": {"file": "executor: {plugin: k8s, k8s: {weightage: 1}, k8s-vm: {weightage: 1}}", "environment": {"WEIGHT_K8S": "0"}},
    "NODE_CONFIG": {"file": "executor: {plugin: k8s}", "environment": {"NODE_CONFIG": '{"executor": {"k8s-vm": {"weightage": 5}}}'}},
    "NODE_CONFIG that is not JSON": {"file": "executor: {plugin: k8s}", "environment": {"NODE_CONFIG": "{executor: {plugin: k8s-vm}}"}},
    "a variable over NODE_CONFIG": {
        "file": None,
        "environment": {"NODE_CONFIG": '{"executor": {"plugin": "k8s"}}', "EXECUTOR_PLUGIN": "k8s-vm"},
    },
    "JSON5 in a variable": {"file": None, "environment": {"K8S_POD_LABELS": "{a: 'b', /* c */ d: 0x1F,}"}},
    "an entry without a map": {"file": "executor:\n  plugin: k8s-vm\n  k8s:\n"},
    "a list replaces": {"file": "executor: {k8s: {exclusion: []}}"},
    "numbers": {"file": "executor: {k8s: {weightage: 1_000}, k8s-vm: {weightage: .inf}, other: {pluginName: k8s, weightage: 010}}"},
    "words": {"file": "executor: {k8s: {options: {a: on, b: yes, c: y, d: 1:30, e: 0o17, f: 1e3, g: 0b11, h: ~, i: 12e03, j: +.5}}}"},
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_effective_config_of_a_chosen_worker(name: str) -> None:
    case = {"environment": {}, **CHOSEN[name]}
    (answer,) = ask([case])
    ours = effective({**case, "file": case["file"] or ""})
    assert same(plain(ours), answer["executor"])
    for executor, share in routing.shares(ours, "node:22").items():
        assert within(answer["counts"].get(executor, 0), float(share))


def test_a_variable_that_is_not_json_keeps_the_worker_from_starting() -> None:
    environment: dict[str, t.Any] = {"K8S_POD_LABELS": "{a: b}"}
    assert "K8S_POD_LABELS" in ask([{"file": None, "environment": environment}])[0]["error"]
    with pytest.raises(UserError, match=r"^K8S_POD_LABELS is not valid JSON: .* and the worker does not start with it\.$"):
        worker.effective({}, Environment(environment))


JSON_FILES = {
    "one line": '{"executor": {"plugin": "k8s", "k8s": {"weightage": 100}}}',
    "pretty": (
        '{\n    "executor": {\n        "plugin": "k8s",\n        "k8s": {\n            "weightage": 100\n        }\n    },\n    "x": 1\n}\n'
    ),
    "JSON5": "// head\n{\n  executor: {\n    plugin: 'k8s', // the default\n    k8s: {weightage: +100,},\n  },\n}\n",
    "CRLF": '{\r\n  "executor": {\r\n    "plugin": "k8s",\r\n    "k8s": {"weightage": 100}\r\n  }\r\n}\r\n',
}


@pytest.mark.parametrize("name", JSON_FILES)
def test_a_json_file_stays_one_that_the_worker_reads(name: str) -> None:
    text = JSON_FILES[name]
    document = Document(text, "text", is_json=True)
    document.merge({"executor": {"k8s": {"weightage": 90}, "k8s-kata": {"pluginName": "k8s", "weightage": 10, "exclusions": ["a\\b"]}}})
    (answer,) = ask([{"file": document.text(), "name": "local.json"}])
    assert answer["executor"]["k8s"]["weightage"] == 90
    assert answer["executor"]["k8s-kata"] == {"pluginName": "k8s", "weightage": 10, "exclusions": ["a\\b"]}
    if name in ("one line", "pretty", "CRLF"):
        json.loads(document.text())
    for comment in ("// head", "// the default"):
        assert (comment in text) == (comment in document.text())


# Numbers and patterns

NUMBERS: list[t.Any] = [
    0,
    5,
    -3,
    2.5,
    1e21,
    1e-7,
    "",
    " ",
    " 7 ",
    "10%",
    "1_000",
    "1e3",
    "0x1F",
    "0b11",
    "0o17",
    ".5",
    "5.",
    "+5",
    "-5",
    "Infinity",
]
NUMBERS += [
    "-Infinity",
    "NaN",
    "abc",
    "12abc",
    "0x",
    "1e",
    "--5",
    "1,5",
    True,
    False,
    None,
    [],
    [5],
    ["7", 1],
    {},
    {"a": 1},
    "\n3\t",
    "1e400",
    1e300,
]


def test_numbers_are_javascripts() -> None:
    script = """const values = JSON.parse(require('fs').readFileSync(0, 'utf8'));
        console.log('ANSWERS ' + JSON.stringify(values.map(value => \
[String(+value || 0), String(parseInt(value, 10) || 0), String(value)])));"""
    for value, (number, integer, text) in zip(NUMBERS, node(script, NUMBERS), strict=True):
        assert _javascript.text_of(_javascript.number(value)) == number, value
        assert str(_javascript.integer(value)) == integer, value
        assert _javascript.text_of(value) == text, value


def test_patterns_are_those_of_node() -> None:
    corpus = (FILES / "patterns.txt").read_text().splitlines()
    names = [*json.loads((FILES / "images.json").read_text())]
    script = """const [patterns, names] = JSON.parse(require('fs').readFileSync(0, 'utf8'));
        const test = (pattern, name) => { try { return name.match(new RegExp(pattern, 'gi')) !== null; } catch (err) { return null; } };
        console.log('ANSWERS ' + JSON.stringify(patterns.map(pattern => names.map(name => test(pattern, name)))));"""
    assert len(corpus) >= 200
    for pattern, theirs in zip(corpus, node(script, [corpus, names]), strict=True):
        for name, found in zip(names, theirs, strict=True):
            try:
                ours: bool | None = _javascript.matches(pattern, name)
            except _javascript.PatternError:
                ours = None
            assert ours is found, (pattern, name)


def test_a_pattern_without_end_is_refused() -> None:
    with pytest.raises(_javascript.PatternError, match="takes longer than 2 s"):
        _javascript.matches("(a+)+b", "a" * 60)


# Shares


@pytest.mark.parametrize("share", ["0", "0.01", "12.5", "33.33", "100"])
def test_the_weightages_for_a_share_give_it(share: str) -> None:
    section = {"plugin": "k8s-vm", "k8s-vm": {"weightage": 100}, "k8s-kata": {"pluginName": "k8s", "weightage": 0}}
    for name, weight in routing.weights_for(section, "k8s-kata", "k8s-vm", Decimal(share)).items():
        section[name] = {**t.cast("dict[str, t.Any]", section[name]), "weightage": weight}
    (answer,) = ask([{"file": yaml.safe_dump({"executor": section}), "builds": BUILDS}])
    assert within(answer["counts"].get("k8s-kata", 0), float(share) / 100)


# Size

MODULE = """
import sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
from ansible_collections.screwdriver.kata.plugins.modules import executor_config
executor_config.main()
"""
SECONDS = 10
SHAPES = {
    "small values": '  key{0}:\n    name: value-{0}\n    list: [a, b, {0}]\n    text: "words {0}"\n',
    "aliases": "  key{0}: &a{0} {{x: 1}}\n  other{0}: *a{0}\n",
    "comments": "  # a comment of some length that says nothing at all, number {0}\n",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_large_config_is_written_in_time(tmp_path: Path, shape: str) -> None:
    line = SHAPES[shape]
    filler = "".join(line.format(number) for number in range(880 * 1024 // len(line.format(0))))
    legacy = "  k8s: &k\n    weightage: 100\n    options: {kubernetes: {jobsNamespace: sd}}\n"
    head = f"executor:\n{legacy}  k8s-kata:\n    <<: *k\n    weightage: 0\n"
    path = tmp_path / "local.yaml"
    path.write_text(f"{head}other:\n  first: 1\n{filler}")
    asked = {"path": str(path), "legacy_executor": "k8s", "kata_share": "10", "_ansible_diff": True}
    asked["executors"] = {"k8s-kata": {"pluginName": "k8s", "options": {"kubernetes": {"runtimeClass": "kata"}}}}
    # The time of its own that it takes, so that a busy machine makes no difference.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    given = json.dumps({"ANSIBLE_MODULE_ARGS": asked})
    done = subprocess.run([sys.executable, "-c", MODULE], input=given, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert json.loads(done.stdout).get("changed") is True, done.stdout + done.stderr
    assert path.read_text().endswith(filler)
    assert path.stat().st_size > 870 * 1024
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{path.stat().st_size / 1024:.0f} KiB in {seconds:.1f} s")
    assert seconds < SECONDS
