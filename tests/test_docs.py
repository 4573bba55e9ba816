"""What the documents say is run: code blocks, the verbs of commands, links."""

import re
from pathlib import Path
from typing import Any

import pytest

from tutelage.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_code_blocks_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "<block>", "exec"), {})


def test_there_are_code_blocks() -> None:
    assert BLOCKS


def test_commands_in_the_documents_exist() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    fence = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
    fenced = fence.findall(text)
    quoted = re.findall(r"`([^`\n]+)`", fence.sub("", text))
    code = [*fenced, *quoted]
    lines = [line for block in code for line in block.splitlines()]
    verbs = {match[1] for line in lines if (match := re.match(r"tutelage ([a-z]+)", line))}
    assert len(verbs) >= 5
    assert verbs <= set(VERBS), verbs - set(VERBS)


def test_links_between_documents_lead_somewhere() -> None:
    links = [
        (page, link)
        for page in PAGES
        for link in re.findall(r"\]\(([^)#]+?)\)", page.read_text())
        if "://" not in link
    ]
    assert links
    for page, link in links:
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_a_folder_is_brought_from_another_file_system(tmp_path: Path) -> None:
    import fsspec

    (block,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/machines.md").read_text(), re.DOTALL
    )
    known: dict[str, Any] = {}
    exec(compile(block, "<block>", "exec"), known)
    there = fsspec.filesystem("memory")
    there.pipe({"/shelf/my/manifest.json": b"{}", "/shelf/my/deep/shard": b"abc"})
    known["bring"]("memory://shelf/my", str(tmp_path / "my"))
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"my/manifest.json", "my/deep/shard"}
    assert (tmp_path / "my/deep/shard").read_bytes() == b"abc"
