"""The commands and files that the documents show, so that tests run what a reader would type."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
GUIDES = TOP / "docs" / "docsite" / "rst"


class Block(t.NamedTuple):
    """A block of commands.

    Attributes:
        place: The file and the line where it begins.
        commands: What is typed, without the prompt and remarks.
        mark: ``run-by`` with a test, or ``not-run`` with a reason; empty without either.
        value: The test or the reason.
    """

    place: str
    commands: list[str]
    mark: str
    value: str


def _typed(lines: list[str], prompt: bool) -> list[str]:
    """The commands among the lines of a block; without the prompt, a line is output."""
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ") or (not prompt and line and not line.startswith("#"))]
    return [re.sub(r"\s+#.*", "", line).rstrip() for line in typed]


def _indented(lines: list[str], start: int) -> list[str]:
    """The indented lines from a place on, without their indentation."""
    block: list[str] = []
    for line in lines[start:]:
        if line.strip() and not line.startswith("   "):
            break
        block.append(line.strip())
    return block


def blocks(file: Path) -> list[Block]:
    """The blocks of commands of a guide, or of a file of Markdown."""
    lines = file.read_text().splitlines()
    found = []
    mark, value = "", ""
    for number, line in enumerate(lines):
        if marked := re.match(r"(?:\.\. |<!-- )(run-by|not-run): (.*?)(?: -->)?$", line):
            mark, value = marked[1], marked[2]
            continue
        if shown := re.match(r"\.\. code-block:: (console|shell|bash|sh)$", line):
            commands = _typed(_indented(lines, number + 1), shown[1] == "console")
        elif line == "```shell":
            commands = _typed([entry.strip() for entry in lines[number + 1 : lines.index("```", number + 1)]], False)
        else:
            # A mark belongs to the block that follows.
            mark, value = (mark, value) if not line.strip() else ("", "")
            continue
        found.append(Block(f"{file.relative_to(TOP)}:{number + 1}", commands, mark, value))
        mark, value = "", ""
    return found


def commands_of(file: Path, test: str) -> list[str]:
    """The commands of a guide that a test says to run, in their order."""
    return [command for block in blocks(file) if (block.mark, block.value) == ("run-by", test) for command in block.commands]


def files_of(file: Path) -> dict[str, str]:
    """The contents of the files that a guide shows: blocks of YAML behind a line that begins with the file's name."""
    lines = file.read_text().splitlines()
    found: dict[str, str] = {}
    for number, line in enumerate(lines):
        if (named := re.match(r"``([a-z]+\.yml)`` ", line)) and ".. code-block:: yaml" in lines[number : number + 4]:
            start = lines.index(".. code-block:: yaml", number) + 1
            text = []
            for entry in lines[start:]:
                if entry.strip() and not entry.startswith("   "):
                    break
                text.append(entry[3:])
            found[named[1]] = "\n".join(text).strip() + "\n"
    return found
