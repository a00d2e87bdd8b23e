"""Turns a recorded terminal session into a picture.

`tools/transcript` calls it with its recording.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

# Legible at the width that GitHub gives a README.
WIDTH = 96


def lines(recording: str) -> list[str]:
    """What is left on the screen: a line that was wiped is gone, and so is script's own first and last line."""
    kept = [line.rstrip("\r").rpartition("\r\x1b[2K")[2] for line in recording.split("\n")]
    return [
        line
        for line in kept
        if line.strip()
        and not re.match(r"Script (started|done)|\S*make\b|tools/run |(real|user|sys)\b", re.sub(r"\x1b\[[0-9;]*m", "", line))
    ]


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="standard")
    for line in lines(source.read_bytes().decode()):
        console.print(
            Text.from_ansi(line.replace(str(Path.home()), "~").replace(str(Path.cwd()), ".")),
            soft_wrap=False,
            overflow="ellipsis",
            no_wrap=True,
        )
    console.save_svg(str(target), title="make demo")
    # Fonts of a server elsewhere; the viewer's own monospace font does.
    text = re.sub(r"@font-face \{.*?\}\s*", "", target.read_text(), flags=re.S).replace("Fira Code, monospace", "monospace")
    target.write_text(text)


if __name__ == "__main__":
    main()
