"""What pyproject.toml cannot say: the long description is README without links into the repository,
which lead nowhere on PyPI. Everything else stands in pyproject.toml."""

import re
from pathlib import Path

from setuptools import setup

README = Path(__file__).with_name("README.md").read_text("utf-8")
RELATIVE_LINK = r"\[([^]]+)\]\((?![a-z]+:)[^)]*\)"

setup(
    long_description=re.sub(RELATIVE_LINK, r"\1", README),
    long_description_content_type="text/markdown",
)
