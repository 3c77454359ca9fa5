"""Write results into docs/benchmarks.md, between its two marks, and the plot beside it; machines side by side.

python benchmarks/table.py benchmarks/results/*.json [--page docs/benchmarks.md]
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


def tables(reports: list[dict[str, Any]]) -> str:
    """One table for each framework and benchmark, its columns the variants; a row for each case and machine."""
    lines, groups = [], {}
    for name in dict.fromkeys(name_of(report["machine"]) for report in reports):
        mine = [report for report in reports if name_of(report["machine"]) == name]
        versions = {name: version for report in mine for name, version in report["versions"].items()}
        lines.append(_measured(mine, versions))
    for report in reports:
        for row in report["rows"]:
            rows = groups.setdefault((row["framework"], row["benchmark"], row["unit"]), [])
            rows.append((name_of(report["machine"], row["framework"]), row))
    for (framework, benchmark, unit), rows in groups.items():
        names = list(dict.fromkeys(name for _, row in rows for name in row["results"]))
        timed = any("control" in row for _, row in rows)
        machines = list(dict.fromkeys(machine for machine, _ in rows))
        several = len(machines) > 1
        header = [*["machine"] * several, "", *names, *(["A/A control"] if timed else [])]
        where = "" if several else f"; {machines[0]}"
        lines += ["", f"### {framework}: {benchmark} ({unit}{where})", "", _line(header), _line(["---"] * len(header))]
        cases = list(dict.fromkeys(row["case"] for _, row in rows))
        for machine, row in sorted(rows, key=lambda found: (cases.index(found[1]["case"]), machines.index(found[0]))):
            cells = [_cell(row["results"].get(name)) for name in names]
            control = [_control(row)] if timed else []
            lines.append(_line([*[machine] * several, row["case"], *cells, *control]))
        if benchmark.startswith("composition") and unit == "of textbook":
            for machine in machines:
                mine = [row["results"] for found, row in rows if found == machine]
                means = [_mean([results.get(name, results.get("ours")) for results in mine]) for name in names]
                where = " (by channel where G=1)" * any("by channel" in name for name in names)
                lines.append(_line([*[machine] * several, f"geometric mean{where}", *means, *[""] * timed]))
    return "\n".join(lines)


def name_of(machine: dict[str, Any], framework: str = "GPU") -> str:
    """The GPU, for what was measured on one, or the processor."""
    return (machine.get("gpu") if "GPU" in framework else None) or machine["cpu"]


def _measured(reports: list[dict[str, Any]], versions: dict[str, str]) -> str:
    """When and with what one machine's results were measured."""
    machine, dates = reports[0]["machine"], " and ".join(dict.fromkeys(report["date"] for report in reports))
    processor = f"{machine['cpu']}, {machine['cores']} cores"
    name = f"{machine['gpu']} ({processor})" if machine.get("gpu") else f"{processor}, one thread"
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"- Measured on {dates}: {name}; Python {machine['python']}, {listed}."


def _control(row: dict[str, Any]) -> str:
    return f"{row['control']:.3f}" + " (off)" * row["control_is_off"] if "control" in row else ""


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
    return f"{math.exp(sum(map(math.log, values)) / len(values)):.2f}" if values else ""


def plot(reports: list[dict[str, Any]], path: Path) -> None:
    """Bars of every row that is relative to the plain layer."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.name  # the same results, the same file
    from matplotlib import pyplot

    rows = [
        (name_of(report["machine"], row["framework"]), row)
        for report in reports
        for row in report["rows"]
        if row["unit"] == "of plain" and "control" in row
    ][::-1]
    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.5 * len(rows)))
    colours = {"textbook": "#bbbbbb", "ours": "#1f77b4", "plain + products": "#f2c14e"}
    for position, (_, row) in enumerate(rows):
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
        range(len(rows)),
        [f"{row['framework']}: {row['benchmark']}, {machine}\n{row['case']}" for machine, row in rows],
        fontsize=6,
    )
    axes.set_xlabel(
        "time, of the plain layers (grey: textbook; blue: ours; light: its other forms; yellow: the limit)", fontsize=8
    )
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None})


def plot_growth(rows: list[dict[str, Any]], path: Path, name: str) -> None:
    """A panel for each size that a cost was measured against, the formula beside it."""
    from matplotlib import pyplot

    panels: dict[tuple[str, str], list[tuple[float, dict[str, Any]]]] = {}
    for row in rows:
        against, place = row["case"].rsplit(" ", 1)
        panels.setdefault((row["benchmark"].removeprefix("growth of "), against), []).append(
            (float(place), row["results"])
        )
    figure, grid = pyplot.subplots(2, -(-len(panels) // 2), figsize=(9, 5.2), squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, ((what, against), points) in zip(grid.flat, panels.items(), strict=False):
        places = [place for place, _ in points]
        for key, style in (
            ("formula", {"color": "#888888", "linestyle": "--"}),
            ("measured", {"color": "#1f77b4", "marker": "o"}),
        ):
            axes.plot(places, [results[key]["value"] for _, results in points], label=key, markersize=4, **style)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.set_xticks(places, [f"{place:.0f}" for place in places], fontsize=7)
        axes.tick_params(axis="y", labelsize=7)
        values = [result["value"] for _, results in points for result in results.values() if result["value"]]
        axes.set_ylim(min(values) / 2, max(values) * 2)
        axes.set_title(f"{what}, against {against}", fontsize=8)
        axes.grid(visible=True, linewidth=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("microseconds", fontsize=8)
    grid[0, 0].legend(fontsize=7)
    figure.suptitle(f"PyTorch, one thread of {name}", fontsize=9)
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--page", type=Path, default=DOCS / "benchmarks.md")
    options = parser.parse_args()
    reports = [json.loads(path.read_text()) for path in options.results]
    page = options.page.read_text()
    if BEGIN not in page or END not in page:
        parser.error(f"{options.page} lacks the marks {BEGIN!r} and {END!r}")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    picture = options.page.with_suffix(".svg")
    plot(reports, picture)
    pictures = f"![Ratios to the plain layers]({picture.name})"
    for report in reports:
        if rows := [row for row in report["rows"] if row["benchmark"].startswith("growth of ")]:
            growth = picture.with_name("benchmarks-growth.svg")
            plot_growth(rows, growth, name_of(report["machine"], ""))
            pictures += f"\n\n![How the cost grows]({growth.name})"
            break
    command = " ".join(["python benchmarks/table.py", *(f"benchmarks/results/{path.name}" for path in options.results)])
    body = f"{BEGIN}\n\nWritten by `{command}`.\n\n{pictures}\n\n{tables(reports)}\n\n{END}"
    write_text(options.page, before + body + after)


if __name__ == "__main__":
    main()
