"""What the recurrent formats are to show."""

from collections.abc import Sequence
from typing import Any

from benchmarks.record import Target

Row = dict[str, Any]

# With which the paper of KCP compares it.
RIVALS = ("tensor_train_matrix", "tensor_ring", "block_term", "hierarchical_tucker")
TIMES_FASTER = 10  # than tednet
SLOWER = 1.1  # than the better of KCP's two algorithms
ROUND_OFF = 1e-3  # of single precision, in sums of 57,600
BEHIND = 1.0  # points of accuracy behind the best rival


def cost_targets(rows: Sequence[Row]) -> list[Target]:
    """Of the rows of all kinds; without tednet its targets are missed."""
    found = []
    races = dict.fromkeys(
        (row["budget"], row["modes"], row["steps"])
        for row in rows
        if row["kind"] == "formats" and row["budget"].endswith("parameters")
    )
    for race in races:
        budget, modes, steps = race
        named = {
            row["format"]: row
            for row in rows
            if row["kind"] == "formats" and (row["budget"], row["modes"], row["steps"]) == race
        }
        where = f"{budget}, modes {modes}, {steps} steps"
        for against, formats in (("its paper's rivals", RIVALS), ("all formats", tuple(named))):
            found += _first(where, against, named, formats)
    slowest = max((row["to_better"] for row in rows if row["kind"] == "orders"), default=None)
    found.append(Target("slowest order found / the better algorithm, time", "<=", SLOWER, slowest))
    same = max((row["difference"] for row in rows if row["kind"] == "tednet"), default=None)
    found.append(
        Target(
            "tednet and the same network of ours, greatest relative difference of outputs",
            "<=",
            ROUND_OFF,
            same,
        )
    )
    for setting in ("its own", "UCF11"):
        of_setting = [r for r in rows if r["kind"] == "tednet" and r["setting"] == setting]
        for name in ("ours", "kcp"):
            for what in ("product", "forward", "training"):
                least = min((row[f"{what}_faster_{name}"] for row in of_setting), default=None)
                told = "the same network of ours" if name == "ours" else "KCP"
                found.append(
                    Target(
                        f"tednet at {setting} setting / {told}, {what}, least of its formats",
                        ">=",
                        TIMES_FASTER,
                        least,
                    )
                )
    return found


def _first(where: str, against: str, named: dict[str, Row], formats: Sequence[str]) -> list[Target]:
    """KCP's MACs and time over the least of the others; none where no other is there."""
    rivals = [named[name] for name in formats if name in named and name not in ("kcp", "dense")]
    if "kcp" not in named or not rivals:
        return []
    ours = named["kcp"]
    least_macs = min(row["macs"] for row in rivals)
    least_ms = min(row["forward_ms"]["p50"] for row in rivals)
    return [
        Target(
            f"KCP / least of {against}, MACs, {where}", "<=", 1.0,
            round(ours["macs"] / least_macs, 3),
        ),
        Target(
            f"KCP / least of {against}, forward time, {where}", "<=", 1.0,
            round(ours["forward_ms"]["p50"] / least_ms, 3),
        ),
    ]  # fmt: skip


def accuracy_targets(rows: Sequence[Row]) -> list[Target]:
    """The better KCP of each task, cell and question, less the best of the other formats."""
    found = []
    for task, cell in dict.fromkeys((row["task"], row["cell"]) for row in rows):
        those = [row for row in rows if (row["task"], row["cell"]) == (task, cell)]
        for i in range(len(those[0]["heads"])):
            ours, others = (
                [
                    row["heads"][i]["mean"]
                    for row in those
                    if row["format"].startswith("kcp") == is_kcp and row["format"] != "dense"
                ]
                for is_kcp in (True, False)
            )
            behind = round(max(others) - max(ours), 2) if ours and others else None
            name = f"{task}, {cell}, question {i + 1}: points of KCP behind the best rival"
            found.append(Target(name, "<=", BEHIND, behind))
    return found
