"""The speed benchmark's tables for the terminal."""

from rich.console import Console
from rich.table import Table

from tests.benchmarks.convolutions import operations_per_sample
from tests.benchmarks.figures import Figures
from tests.benchmarks.others import Others

GOALS = {"(a)": 2.5, "(b)": 1.2, "(c)": 2.0}
ROOF_GOAL, PIPELINE_GOAL = 0.65, 20.0
MEGABYTE = 1e6


def print_tables(figures: Figures, console: Console) -> None:
    """Contenders, roof, and the rest, each with its goal beside what was measured."""
    names = list(figures.rates["train"])
    itself = next((name for name in names if name.startswith("(d)")), "")
    roofs = [name for name in names if name.startswith("convolution roof")]
    table = Table(title="Training, samples/s")
    for column in ("", "median", "lowest", "highest", "kfusion ÷ it", "goal", "peak MB", "CPU while idle"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=not column)
    for name in names:
        goal = GOALS.get(name[:3])
        ratio = figures.ratio(("train", itself), ("train", name))
        note, rates = figures.notes[name], figures.rates["train"][name]
        table.add_row(
            name,
            *(f"{rate:,.0f}" for rate in (figures.median("train", name), min(rates), max(rates))),
            f"{ratio:.2f}" if itself and name != itself else "",
            verdict(ratio, goal) if goal and itself else "",
            f"{note['peak_bytes'] / MEGABYTE:,.0f}",
            f"{note['idle_cpu_share']:.1%}",
        )
    console.print(table)
    for name in roofs:
        billions = figures.median("train", name) * operations_per_sample() / 1e9
        console.print(f"{name}: {billions:,.0f} GFLOP/s in the four convolutions, forward and backward", soft_wrap=True)
    if itself:
        print_itself(figures, itself, max(roofs, key=lambda name: figures.median("train", name)), console)
    console.print(Others.verdict(figures.machine["others_cores"]), soft_wrap=True)


def print_itself(figures: Figures, itself: str, roof: str, console: Console) -> None:
    """kfusion against the roof, its own pipeline, and (b)'s evaluation."""
    share = figures.ratio(("train", itself), ("train", roof))
    console.print(f"kfusion ÷ {roof}: {share:.2f}, {verdict(share, ROOF_GOAL)}")
    ahead = figures.ratio(("pipeline", itself), ("train", itself))
    rate = figures.median("pipeline", itself)
    console.print(f"pipeline alone: {rate:,.0f} samples/s, {ahead:.1f} × training, {verdict(ahead, PIPELINE_GOAL)}")
    for name in figures.rates.get("evaluate", {}):
        console.print(f"evaluate, {name}: {figures.median('evaluate', name):,.0f} samples/s")


def wide_console() -> Console:
    """The terminal; written to a file, it is wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=118)


def verdict(measured: float, goal: float) -> str:
    return f"≥ {goal:g} {'reached' if measured >= goal else 'missed'}"
