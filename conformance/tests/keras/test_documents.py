"""The code of the page for Keras's users runs as it stands."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "keras.md"


def test_page() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert blocks
    exec("\n".join(blocks), {"__name__": "page"})
