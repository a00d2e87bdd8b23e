"""The documents hold what they say: commands are run by tests, messages exist, playbooks and pages are complete."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.screwdriver.kata.tests.documents import GUIDES, TOP, Block, blocks

FILES = [*sorted(GUIDES.glob("*.rst")), TOP / "README.md"]
# A test of the newcomer takes its commands from the quick start; of other tests the names of playbooks are looked up.
BLOCKS = [block for file in FILES for block in blocks(file)]


@pytest.mark.parametrize("block", BLOCKS, ids=[block.place for block in BLOCKS])
def test_a_test_runs_each_command_or_a_reason_says_why_not(block: Block) -> None:
    assert block.commands, f"{block.place} has no command"
    assert block.mark, f"{block.place}: put '.. run-by: TEST' or '.. not-run: REASON' above it"
    if block.mark == "not-run":
        assert len(block.value) > 20
        return
    text = "\n".join((TOP / test).read_text() for test in block.value.split(", "))
    if block.value.endswith("test_newcomer.py"):
        text = (GUIDES / "guide_quickstart.rst").read_text()
    for playbook in re.findall(r"screwdriver\.kata\.([a-z]+)", " ".join(block.commands)):
        assert re.search(rf"\b{playbook}\b", text), f"{block.place}: {block.value} does not run {playbook}"


def source() -> str:
    """All texts of the code in which a message may be, with the seams of wrapped strings taken out."""
    files = [
        path
        for place in ("plugins", "roles", "playbooks")
        for path in sorted((TOP / place).rglob("*"))
        if path.suffix in (".py", ".yml", ".sh")
    ]
    text = "\n".join(path.read_text() for path in files)
    # Python and Jinja join pieces; a message may be in several.
    return re.sub(r"\s+", " ", re.sub(r"""["']\s*~?\s*\n?\s*f?["']""", "", text))


def test_each_message_of_the_troubleshooting_guide_exists() -> None:
    guide = (GUIDES / "guide_troubleshooting.rst").read_text()
    messages = re.findall(r"^   \* - ``(.+)``$", guide, re.MULTILINE)
    assert len(messages) > 25
    code = source()
    for message in messages:
        for part in filter(None, map(str.strip, message.split("…"))):
            assert part in code, f"no message has {part!r}"


def test_each_finding_is_listed_and_has_its_row() -> None:
    code = "\n".join(path.read_text() for path in sorted((TOP / "plugins/module_utils/_executor").glob("*.py")))
    calls = re.findall(
        r'(?:_error|_warning|report|_say|LeftOut)\(\s*"([a-z_]+)"|"code": "([a-z_]+)"|code = "(\w+)" if .* else "(\w+)"', code
    )
    codes = {name for found in calls for name in found if name}
    assert len(codes) > 35
    module = (TOP / "plugins/modules/executor_config_info.py").read_text()
    listed = yaml.safe_load(re.findall(r'^RETURN = r"""$(.*?)^"""$', module, re.MULTILINE | re.DOTALL)[0])["findings"]["contains"]["code"]
    assert set(re.findall(r"C\((\w+)\)", " ".join(listed["description"]))) == codes
    guide = (GUIDES / "guide_executor.rst").read_text()
    table = guide[guide.index("\nFindings\n--") : guide.index("\nSecrets\n--")]
    rows = re.findall(r"^   \* - (``.*)$", table, re.MULTILINE)
    assert set(re.findall(r"``(\w+)``", " ".join(rows))) == codes


def test_each_playbook_has_its_section() -> None:
    guide = (GUIDES / "guide_playbooks.rst").read_text()
    for playbook in sorted((TOP / "playbooks").glob("*.yml")):
        assert re.search(rf"^{playbook.stem}\n-+$", guide, re.MULTILINE), playbook.stem


def test_each_guide_is_in_the_table_of_contents_and_in_the_readme() -> None:
    sections = yaml.safe_load((GUIDES.parent / "extra-docs.yml").read_text())["sections"]
    listed = {name for section in sections for name in section["toctree"]}
    assert listed == {path.stem for path in GUIDES.glob("*.rst")}
    readme = (TOP / "README.md").read_text()
    assert not [name for name in listed if f"docs/docsite/rst/{name}.rst" not in readme]


def test_each_installer_that_is_detected_has_its_row() -> None:
    probe = (TOP / "roles/download/files/probe_installer.sh").read_text()
    names = set(re.findall(r"installer=([a-z0-9]+)", probe)) | set(re.findall(r"rancher ([a-z0-9]+) ", probe))
    guide = (GUIDES / "guide_installers.rst").read_text()
    assert names >= {"k3s", "rke2", "k0s", "eks", "docker"}
    assert not [name for name in names if f"``{name}``" not in guide]


def test_make_help_lists_every_target() -> None:
    makefile = (TOP / "Makefile").read_text()
    targets = {name for line in re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE) for name in line.split()}
    shown = set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE))
    assert targets == shown
    assert re.search(r"\^\[a-z0-9-\]\+:\.\*## ", makefile), "help has to know digits"


def test_make_help_fits_80_columns() -> None:
    lines = subprocess.run(["make", "help"], cwd=TOP, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) > 15
    assert [line for line in lines if len(line) > 80] == []


def table_of_the_article() -> list[list[str]]:
    """The cells of each row: statement, where, page, tests."""
    text = (GUIDES / "guide_tests.rst").read_text().split("The article, statement by statement")[1]
    rows = [re.sub(r"\s+", " ", row) for row in re.split(r"^   \* - ", text, flags=re.MULTILINE)[2:]]
    return [row.split(" - ") for row in rows]


@pytest.mark.parametrize("row", table_of_the_article(), ids=lambda row: row[0])
def test_each_statement_of_the_article_has_its_variable_page_and_test(row: list[str]) -> None:
    _statement, where, page, tests = row
    specs = "".join(path.read_text() for path in TOP.glob("roles/*/meta/argument_specs.yml"))
    guide = re.search(r"docsite\.(guide_\w+)>", page)
    assert guide
    text = (GUIDES / f"{guide[1]}.rst").read_text()
    for kind, name in re.findall(r"(module |playbook |role )?``(\w+)``", where):
        place = {"module ": "plugins/modules/{}.py", "playbook ": "playbooks/{}.yml", "role ": "roles/{}"}.get(kind)
        if place:
            assert (TOP / place.format(name)).exists(), name
        elif name != "pilot":
            assert re.search(rf"^ +{name}:", specs, re.MULTILINE), f"{name} is not a variable"
            assert name in text, f"{guide[1]} does not have {name}"
    listed = re.findall(r"``([^`]+)::(\w+)``", tests)
    assert listed or tests.startswith("not tested: ")
    for file, function in listed:
        assert f"def {function}(" in (TOP / file).read_text(), f"{file} has no {function}"


def test_links_of_the_readme_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", (TOP / "README.md").read_text()):
        if not link.startswith("http"):
            assert Path(TOP / link).exists(), link
