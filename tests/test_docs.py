"""Every example in the documentation runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sapwood import BaseAdapter

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_examples_of_a_page_run(page, tmp_path):
    blocks = _BLOCK.findall(page.read_text())
    if not blocks:
        pytest.skip("this page has no Python in it")
    program = tmp_path / "example.py"
    program.write_text("\n\n".join(blocks))
    done = subprocess.run(
        [sys.executable, "-W", "error", program.name],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("*.md")], ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page):
    missing = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing


def test_every_page_is_in_the_table_of_contents():
    listed = (ROOT / "docs" / "README.md").read_text()
    assert [page.name for page in PAGES if page.name not in listed and page.name != "README.md"] == []


def test_every_verb_of_an_adapter_is_told_of():
    told = (ROOT / "docs" / "adapters.md").read_text()
    verbs = [name for name, value in vars(BaseAdapter).items() if callable(value) and not name.startswith("_")]
    assert verbs
    assert [verb for verb in verbs if f"`{verb}`" not in told] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_python_hides_under_another_name(page):
    named = set(re.findall(r"^```(\S+)$", page.read_text(), re.MULTILINE))
    assert named <= {"python", "console", "sh", "text", "toml", "sql"}
