"""The options that every command with a report has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Stage = Annotated[str | None, typer.Option(help="One stage of the suite only.")]
CaseId = Annotated[str | None, typer.Option(help="One case: its id, or the beginning of it.")]
Json = Annotated[Path | None, typer.Option(help="Write the report to this JSON file.")]
Html = Annotated[Path | None, typer.Option(help="Write the report to this HTML page.")]
Junit = Annotated[Path | None, typer.Option(help="Write the report to this JUnit XML file.")]
