"""Write the results of `benchmarks/run.py` into docs/benchmarks.md, between its two marks, and the plot beside it.

python benchmarks/table.py benchmarks/results/NAME.json [--page docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from doconv_conformance.files import replacing, write_text

BEGIN, END = "<!-- results: written by benchmarks/table.py -->", "<!-- end of the results -->"
DOCS = Path(__file__).parent.parent / "docs"


def tables(report: dict[str, Any]) -> str:
    """One table for each framework and benchmark, its columns the variants."""
    machine, versions = report["machine"], report["versions"]
    lines = [
        f"Measured on {report['date']}: {machine['cpu']}, {machine['cores']} cores, one thread; Python {machine['python']}, "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".",
    ]  # fmt: skip
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in report["rows"]:
        groups.setdefault((row["framework"], row["benchmark"], row["unit"]), []).append(row)
    for (framework, benchmark, unit), rows in groups.items():
        names = list(dict.fromkeys(name for row in rows for name in row["results"]))
        timed = any("control" in row for row in rows)
        header = ["", *names, *(["A/A control"] if timed else [])]
        lines += ["", f"### {framework}: {benchmark} ({unit})", "", _line(header), _line(["---"] * len(header))]
        for row in rows:
            cells = [_cell(row["results"].get(name)) for name in names]
            control = [f"{row['control']:.3f}" + (" (off)" if row["control_is_off"] else "")] if timed else []
            lines.append(_line([row["case"], *cells, *control]))
        if benchmark.startswith("composition"):
            means = [_mean([row["results"].get(name, row["results"].get("ours")) for row in rows]) for name in names]
            where = " (by channel where G=1)" * any("by channel" in name for name in names)
            lines.append(_line([f"geometric mean{where}", *means, ""]))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(result: dict[str, float] | None) -> str:
    if result is None:
        return ""
    value = result["value"]
    if value is None:
        return "not measured"
    if "low" not in result:
        return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.2f}"
    return "1" if result["low"] == result["high"] == 1 else f"{value:.2f} ({result['low']:.2f}-{result['high']:.2f})"


def _mean(results: list[dict[str, float] | None]) -> str:
    values = [result["value"] for result in results if result]
    return f"{math.exp(sum(map(math.log, values)) / len(values)):.2f}"


def plot(report: dict[str, Any], path: Path) -> None:
    """Bars of every row that is relative to the plain layer."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.name  # the same results, the same file
    from matplotlib import pyplot

    rows = [row for row in report["rows"] if row["unit"] == "of plain" and "control" in row][::-1]
    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.5 * len(rows)))
    colours = {"textbook": "#bbbbbb", "ours": "#1f77b4", "plain + products": "#f2c14e"}
    for position, row in enumerate(rows):
        names = [name for name in row["results"] if name != "plain"]
        for number, name in enumerate(names):
            height = 0.8 / len(names)
            result = row["results"][name]
            axes.barh(
                position + 0.4 - height * (number + 0.5), result["value"], height, color=colours.get(name, "#9ecae1"),
                xerr=[[result["value"] - result["low"]], [result["high"] - result["value"]]], error_kw={"linewidth": 0.5},
            )  # fmt: skip
    axes.margins(y=0.01)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(
        range(len(rows)), [f"{row['framework']}: {row['benchmark']}\n{row['case']}" for row in rows], fontsize=6
    )
    axes.set_xlabel(
        "time, of the plain layers (grey: textbook; blue: ours; light: its other forms; yellow: the limit)", fontsize=8
    )
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--page", type=Path, default=DOCS / "benchmarks.md")
    options = parser.parse_args()
    reports = [json.loads(path.read_text()) for path in options.results]
    report = reports[0]
    if any(other["machine"] != report["machine"] for other in reports):
        parser.error("the results are of different machines")
    for other in reports[1:]:
        report["rows"] += other["rows"]
        report["versions"] |= other["versions"]
    page = options.page.read_text()
    if BEGIN not in page or END not in page:
        parser.error(f"{options.page} lacks the marks {BEGIN!r} and {END!r}")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    picture = options.page.with_suffix(".svg")
    plot(report, picture)
    command = " ".join(["python benchmarks/table.py", *(f"benchmarks/results/{path.name}" for path in options.results)])
    body = f"{BEGIN}\n\nWritten by `{command}`.\n\n![Ratios to the plain layers]({picture.name})\n\n{tables(report)}\n\n{END}"
    write_text(options.page, before + body + after)


if __name__ == "__main__":
    main()
