"""The code on the page for Flax's users runs as it stands."""

import re
from pathlib import Path

import jax

PAGE = Path(__file__).parents[3] / "docs" / "flax.md"


def test_the_page() -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(code) == 5
    with jax.numpy_dtype_promotion("standard"):  # optax.adam promotes
        exec("\n".join(code), {})
