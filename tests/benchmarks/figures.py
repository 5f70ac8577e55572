"""What a run of the speed benchmark measured: rates by kind and contender, and their medians and ratios."""

import os
import platform
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass
class Figures:
    """Rates in samples per second: `rates[kind][contender]` has one for each counted round.

    Args:
        machine: see `machine`.
    """

    machine: dict[str, Any]
    rates: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    latest: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, kind: str, name: str, rate: float, counted: bool) -> None:
        """Record a rate; one of a warm-up round is only shown."""
        self.latest[kind, name] = rate
        if counted:
            self.rates.setdefault(kind, {}).setdefault(name, []).append(rate)

    def note(self, name: str, versions: Any, peak_bytes: int, idle_share: float) -> None:
        """Record what is known of a contender at its end."""
        self.notes[name] = {"versions": versions, "peak_bytes": peak_bytes, "idle_cpu_share": round(idle_share, 4)}

    def line(self, number: int) -> str:
        """The round just done, in one line; rounds below 1 are the warm-up."""
        rates = [f"{name} {rate:,.0f}" for (kind, name), rate in self.latest.items() if kind == "train"]
        return f"round {number}, samples/s: " + " | ".join(rates)

    def median(self, kind: str, name: str) -> float:
        """Samples per second, the median of the rounds; 0 where nothing was counted."""
        rates = self.rates.get(kind, {}).get(name)
        return statistics.median(rates) if rates else 0.0

    def ratio(self, over: tuple[str, str], under: tuple[str, str]) -> float:
        """The median over the rounds of one rate divided by another of the same round; 0 where one is missing."""
        pairs = [self.rates.get(kind, {}).get(name, []) for kind, name in (over, under)]
        ratios = [one / other for one, other in zip(*pairs, strict=False)]
        return statistics.median(ratios) if ratios else 0.0

    def to_json(self) -> dict[str, Any]:
        medians = {kind: {name: self.median(kind, name) for name in names} for kind, names in self.rates.items()}
        return {
            "machine": self.machine,
            "unit": "samples per second",
            "medians": medians,
            "rounds": self.rates,
            "contenders": self.notes,
        }


def machine(num_cores: int) -> dict[str, Any]:
    """Where and when it was measured."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in facts if line.startswith("model name")), "unknown")
    return {
        "processor": model,
        "cores": num_cores,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
