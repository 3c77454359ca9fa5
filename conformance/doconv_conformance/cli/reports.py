"""The options that commands with a report share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from doconv_conformance.cases.table import Case


def or_stdout(path: Path | None) -> Path | None:
    """`-` is the standard output, as in other programs, and no file of that name (which is `./-`)."""
    return Path("/dev/stdout") if path is not None and str(path) == "-" else path


Stage = Annotated[str | None, typer.Option(help="Only this stage of the suite.")]
CaseId = Annotated[str | None, typer.Option(help="Only this case: its id, or the beginning of it.")]
Json = Annotated[Path | None, typer.Option(callback=or_stdout, help="Write the report to this JSON file.")]
Html = Annotated[Path | None, typer.Option(callback=or_stdout, help="Write the report to this HTML page.")]
Junit = Annotated[Path | None, typer.Option(callback=or_stdout, help="Write the report to this JUnit XML file.")]
Dtype = Annotated[str | None, typer.Option(help="Only these types of the activations, separated by commas.")]


def types_in(dtype: str) -> list[str]:
    """The types that `--dtype` names, each once.

    Raises:
        ValueError: an unknown type.
    """
    from doconv_conformance.cases.table import DTYPES

    wanted = list(dict.fromkeys(name.strip() for name in dtype.split(",")))
    if any(name not in DTYPES for name in wanted):
        raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}. Received: {dtype}")
    return wanted


def of_dtypes(pairs: list[tuple[Case, str]], dtype: str | None) -> list[tuple[Case, str]]:
    """Those of `pairs` whose activations have one of the types; all without types.

    Raises:
        ValueError: an unknown type, or one that none of `pairs` has.
    """
    if dtype is None:
        return pairs
    wanted = types_in(dtype)
    chosen = [pair for pair in pairs if pair[0].dtype in wanted]
    if not chosen:
        raise ValueError(f"the stage has no case of that type. Received: {dtype}")
    return chosen
