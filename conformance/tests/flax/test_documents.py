"""The code on the pages for Flax's users runs as it stands."""

import re
from pathlib import Path

import jax
import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(("page", "blocks"), [("flax.md", 5), ("start/flax.md", 2)])
def test_the_page(page: str, blocks: int) -> None:
    code = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    assert len(code) == blocks
    with jax.numpy_dtype_promotion("standard"):  # optax.adam promotes
        exec("\n".join(code), {})
