"""`doconv compare --checkpoint`: the layers of a model on every backend, in place of the suite's cases."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Column, Table

from doconv_conformance.cli.files import Choice, open_input, say, table_cell
from doconv_conformance.cli.reports import types_in
from doconv_conformance.cli.terminal import Lines, show
from doconv_conformance.counting import counted
from doconv_conformance.files import check_writable, write_json, write_text
from doconv_conformance.reports import html, junit
from doconv_conformance.reports.build import build
from doconv_conformance.reports.losses_figure import write_losses_figure
from doconv_conformance.reports.row_figure import short_path
from doconv_conformance.running.layer_cases import OPERATIONS, TYPES, LayerPlan, notes, plan_layers
from doconv_conformance.running.layers import LayerOutcome, run_layers, to_json
from doconv_conformance.running.recordings import Recordings, open_recordings
from doconv_conformance.running.ways import TIMEOUT, WayPort, select_ways
from doconv_core.checkpoint import Checkpoint, Hints

MOST_LAYERS = 60
RESULTS = {
    "y": "values of its output", "grad_x": "values of the input's gradient", "grad_W": "values of W's gradient",
    "grad_D_delta": "values of D_delta's gradient", "grad_bias": "values of the bias's gradient",
    "weight": "values of its folded kernel",
}  # fmt: skip


@dataclass(frozen=True)
class Files:
    """What is read and written; None for what is not."""

    checkpoint: Path
    inputs: Path | None
    like: Path | None
    figure: Path
    json: Path | None
    html: Path | None
    junit: Path | None

    def check(self) -> None:
        """
        Raises:
            ValueError: a file that could not be written, or would take the place of another.
        """
        if self.figure.suffix not in (".png", ".svg", ".pdf"):
            raise ValueError(f"--figure must end in .png, .svg or .pdf. Received: {self.figure}")
        if self.inputs and not self.inputs.is_file():
            raise ValueError(f"there is no file {self.inputs}")
        outputs = (self.json, self.html, self.junit, self.figure if find_spec("matplotlib") else None)
        check_writable(*outputs, inputs=[self.checkpoint, self.inputs, self.like])


def compare_checkpoint(
    files: Files,
    choice: Choice,
    hints: Callable[[], Hints],
    backends: Callable[[], tuple[list[str], dict[str, str]]],
    *,
    ways: list[str] | None,
    device: str,
    dtype: str | None,
) -> int:
    """Compare the layers of a checkpoint, write the reports and print them. Returns the exit status, 0 or 1.

    Args:
        files: what is read and written.
        choice: which of the weights of the file are meant.
        hints: gives what the file does not say.
        backends: gives their names, and interpreters of other environments.
        ways: their names; None for the ordinary one.
        device: "cpu" or "cuda".
        dtype: types of the activations, separated by commas; None for `TYPES`.

    Raises:
        typer.BadParameter, ValueError, OSError, ImportError: unusable arguments, or a file that cannot be read or written.
    """
    began = time.monotonic()
    files.check()
    dtypes = types_in(dtype) if dtype else list(TYPES)
    names, interpreters = backends()
    with ExitStack() as stack:
        checkpoint = stack.enter_context(open_input(files.checkpoint, choice, hints()))
        recordings = open_recordings(files.inputs, checkpoint) if files.inputs else None
        if recordings:
            stack.callback(recordings.source.close)
        plans = plan_layers(checkpoint, recordings)
        pairs = [(plan.case(dtype), operation) for plan in plans for dtype in dtypes for operation in OPERATIONS]
        ports = select_ways(names, pairs, ways, device=device, full=True, interpreters=interpreters)
        said = _say_first(files, checkpoint, plans, ports, recordings)
        with _progress(len(plans) * len(dtypes)) as step:
            runs, outcomes = run_layers(ports, checkpoint, plans, dtypes, recordings, step=step, timeout=TIMEOUT)
    report = build(runs, seconds={"total": time.monotonic() - began})
    report["checkpoint"] = {"file": str(files.checkpoint), "notes": said, "layers": to_json(outcomes)}
    drawn = bool(find_spec("matplotlib"))
    draw = partial(write_losses_figure, outcomes, title=files.checkpoint.name)
    _write(report, files, draw if drawn else None)
    _show_layers(outcomes, [run.backend.name for run in runs], dtypes)
    for line in too_short(outcomes):
        say(line)
    status = show(report)
    if any(result.verdict == "mismatch" for run in runs for result in run.results):
        say("doconv compare without --checkpoint tries the backends on exact cases, and says what is wrong")
    say(f"figure: {files.figure}" if drawn else "no figure: it needs matplotlib, pip install 'doconv-core[report]'")
    return status


def too_short(outcomes: Sequence[LayerOutcome]) -> list[str]:
    """A line for each layer and type that is too short for its values, and one for ports that no bound can judge."""
    lines = []
    for outcome in outcomes:
        sizes = ", ".join(f"|{name}| up to {value:.3g}" for name, value in outcome.largest.items())
        for dtype, count in outcome.not_computed.items():
            lines.append(
                f"{outcome.plan.label}: {count} of its input and parameters are beyond {dtype} ({sizes}), not computed in it"
            )
        for dtype in dict.fromkeys(loss.dtype for loss in outcome.losses if loss.infinite):
            losses = [loss for loss in outcome.losses if loss.dtype == dtype and loss.infinite]
            counts: dict[str, tuple[int, int]] = {}
            for name, beyond in (item for loss in losses for item in loss.infinite.items()):
                key = RESULTS[name.removeprefix("folded ")]
                counts[key] = max(beyond, counts.get(key, beyond))
            parts = [f"{many} of {size} {name}" for name, (many, size) in counts.items()]
            lines.append(
                f"{outcome.plan.label}: overflows {dtype}: {', '.join(parts)} "
                f"({', '.join(loss.backend for loss in losses)}); in float64 {sizes}"
            )
    for backend in dict.fromkeys(loss.backend for outcome in outcomes for loss in outcome.losses):
        free: dict[str, list[str]] = {}
        for loss in (loss for outcome in outcomes for loss in outcome.losses if loss.backend == backend):
            for name in loss.unbounded:
                free.setdefault(loss.dtype, []).append(name)
        if free:
            which = " and ".join(f"{', '.join(dict.fromkeys(names))} in {dtype}" for dtype, names in free.items())
            lines.append(
                f"{backend} forms {which} in the type itself: no bound holds for sums so long, any finite value is right"
            )
    return lines


def _say_first(
    files: Files,
    checkpoint: Checkpoint,
    plans: Sequence[LayerPlan],
    ports: Sequence[WayPort],
    recordings: Recordings | None,
) -> list[str]:
    """What is compared, and what was assumed; returns the latter."""
    convolutions = sum(info.kind == "conv" for info in checkpoint.layers.values())
    of = "" if convolutions == len(plans) else f" of {counted(convolutions, 'convolution')}"
    say(
        f"{files.checkpoint}: {len(plans)}{of} are over-parameterized; on {', '.join(port.port.name for port in ports)}"
    )
    said = notes(checkpoint, plans, recordings)
    for note in said:
        say(f"note: {note}")
    sys.stdout.flush()
    return said


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a line now and then elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = Lines("layers and types", total)
        yield lambda layer: lines.step()
        return
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, transient=True, console=console) as progress:
        task = progress.add_task("starting", total=total)
        yield lambda layer: progress.update(task, advance=1, description=table_cell(layer))


def _write(report: Mapping[str, object], files: Files, draw: Callable[[Path], None] | None) -> None:
    if draw:
        draw(files.figure)
    if files.json:
        write_json(files.json, report)
    if files.junit:
        write_text(files.junit, junit.render(report))
    if files.html:
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "figure.jpg"
            if draw:
                draw(picture)
            figure = picture.read_bytes() if draw else b""
        write_text(files.html, html.render(report, figure=figure, heading="The layers, worst first"))


def _show_layers(outcomes: Sequence[LayerOutcome], backends: Sequence[str], dtypes: Sequence[str]) -> None:
    """A line per layer, worst first."""
    console = Console(width=None if Console().is_terminal else 120)
    table = Table(Column("layer", no_wrap=True), "kernel")
    for heading in (*backends, "folding", *dtypes):
        table.add_column(heading, justify="right")
    for outcome in outcomes[:MOST_LAYERS]:
        losses = [_loss(outcome, dtypes[0], "folding"), *(_loss(outcome, dtype, "output") for dtype in dtypes)]
        shares = [_share(outcome, backend) for backend in backends]
        table.add_row(table_cell(short_path(outcome.plan.label)), _kernel(outcome.plan), *shares, *losses)
    console.print(table)
    if len(outcomes) > MOST_LAYERS:
        say(f"and {counted(len(outcomes) - MOST_LAYERS, 'layer')} with smaller errors; --json has all")
    say(
        "Worst first. Under each backend: its largest error as a share of the bound; forward, backward, folded, in all types."
    )
    say(
        f"folding: what it changes in {dtypes[0]}; under each type: what it loses against float64; as shares of |output|."
    )


def _kernel(plan: LayerPlan) -> str:
    g = plan.geometry
    groups = f", {g.groups} groups" if g.groups > 1 else ""
    return f"{'x'.join(map(str, g.kernel_size))} {g.in_channels}>{g.out_channels}{groups}"


def _share(outcome: LayerOutcome, backend: str) -> str:
    rows = [result for result in outcome.rows if result.backend == backend]
    wrong = next((result for result in rows if not result.agrees), None)
    if wrong:
        return f"[red]{wrong.verdict}[/]"
    share = outcome.share(backend)
    return "" if share is None else f"{share:.2%}"


def _loss(outcome: LayerOutcome, dtype: str, attribute: str) -> str:
    """The largest loss of a type, and whether values overflow it."""
    if dtype in outcome.not_computed:
        return "[red]overflow[/]"
    value = outcome.loss(dtype, attribute)
    text = "" if value is None else f"{value:.1e}"
    return f"[red]{text}, inf[/]" if attribute == "output" and outcome.is_beyond(dtype) else text
