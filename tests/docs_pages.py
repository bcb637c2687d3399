"""What the tests of the documentation share: its pages, their links, code blocks and command lines."""

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
_RESULTS = re.compile(r"<!-- results:begin -->.*?<!-- results:end -->", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """A piece of text and the page that it stands on."""

    page: str
    text: str
    in_text: bool = False


def name(page: Path) -> str:
    """A page's path below the repository."""
    return str(page.relative_to(REPOSITORY))


def read(page: Path) -> str:
    """A page's text, without the measured results: those are filled in by a command."""
    return _RESULTS.sub("", page.read_text(encoding="utf-8"))


def code_blocks(language: str) -> list[Found]:
    """All code blocks of a language."""
    return [
        Found(name(page), text)
        for page in PAGES
        for kind, text in _FENCE.findall(read(page))
        if kind == language
    ]


def links(page: Path) -> list[str]:
    """Targets of links and images that are not on the web."""
    text = _SPAN.sub("", _FENCE.sub("", read(page)))
    return [target for _, target in _LINK.findall(text) if not target.startswith(("http://", "https://"))]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes for a page's headings."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def command_lines(*programs: str) -> list[Found]:
    """Lines of shell blocks, and code in running text, that begin with one of the programs.

    Variables before the program and a comment behind it are left out; so are programs without any argument
    and texts with an ellipsis, which stand for a command rather than being one.
    """
    found = []
    for page in PAGES:
        text = read(page)
        blocks = [block for kind, block in _FENCE.findall(text) if kind == "bash"]
        lines = [(line, False) for block in blocks for line in block.splitlines()]
        lines += [(span, True) for span in _SPAN.findall(_FENCE.sub("", text))]
        for line, in_text in lines:
            plain = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line.split("  #")[0].strip())
            if plain.split(" ")[0] in programs and " " in plain and "…" not in plain and "| " not in plain:
                found.append(Found(name(page), plain, in_text))
    return found
