"""The docs site builds without a warning, asks no other host, and its links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


class Page(HTMLParser):
    """What a page loads, where it leads, and what can be led to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        if tag in LOADS:
            self.loads.append(given.get(LOADS[tag], ""))
        elif tag == "a":
            self.links.append(given.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    for name in ("forgetguard", "plugins"):
        (folder / name).symlink_to(ROOT / name)
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(build, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_every_page_of_docs_is_in_the_navigation() -> None:
    told = (ROOT / "zensical.toml").read_text("utf-8")
    assert tomllib.loads(told)["project"]["theme"]["font"] is False
    assert set(re.findall(r'"([\w-]+\.md)"', told)) == {
        path.name for path in (ROOT / "docs").glob("*.md")
    }


def test_nothing_is_loaded_from_another_host_and_links_lead_somewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 20
    for path, page in pages.items():
        assert not [one for one in page.loads if urlsplit(one).netloc], path
        for link in page.links if path.name != "404.html" else ():
            target, anchor = urldefrag(link)
            if urlsplit(link).scheme:
                continue
            to = (path.parent / unquote(target)).resolve() if target else path
            assert to.exists(), f"{path.name}: {link}"
            if anchor and to in pages:
                assert unquote(anchor) in pages[to].ids, f"{path.name}: {link}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", style.read_text("utf-8")), style


def test_the_api_page_holds_what_the_package_names(site: Path) -> None:
    import forgetguard

    told = (site / "api.html").read_text("utf-8")
    for name in forgetguard.__all__:
        assert re.search(rf'<h\d id="[\w.]+\.{name}"', told), name
