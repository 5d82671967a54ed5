"""The tables of the records `recurrent-cost` and `recurrent-accuracy`."""

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
Tables = list[tuple[tuple[str, ...], list[tuple[str, ...]]]]

MEBIBYTE = 2**20
FORMAT_HEADINGS = (
    *("budget", "modes", "steps", "format", "ranks", "parameters", "MACs"),
    *("forward, ms", "dense / it", "with gradients, ms", "dense / it"),
    *("forward, MiB", "with gradients, MiB"),
)
ORDERS = ("found", "mode by mode", "contract, then expand")
ORDER_HEADINGS = (
    *("modes", "terms", "rank", "parameters"),
    *(f"{order}: {what}" for order in ORDERS for what in ("MACs", "copied", "ms")),
    "found / the better",
)
TEDNET_HEADINGS = (
    *("tednet's format", "at", "parameters", "outputs differ by"),
    *("product, ms", "ours", "times faster", "kcp", "times faster"),
    *("forward, ms", "ours", "times faster", "kcp", "times faster"),
    *("with gradients, ms", "ours", "times faster", "kcp", "times faster"),
)
ACCURACY_HEADINGS = (
    *("task", "cell", "format", "accuracy, %", "parameters of W_ih", "fewer", "of the model"),
    *("fewer", "ranks", "sequences x epochs", "CPU seconds"),
)


def cost_tables(rows: Sequence[Row]) -> Tables:
    """One for each kind of row."""
    kinds = (
        ("formats", FORMAT_HEADINGS, _format_cells),
        ("orders", ORDER_HEADINGS, _order_cells),
        ("tednet", TEDNET_HEADINGS, _tednet_cells),
    )
    of_kind = ((h, [cells(row) for row in rows if row["kind"] == k]) for k, h, cells in kinds)
    return [(headings, cells) for headings, cells in of_kind if cells]


def accuracy_tables(rows: Sequence[Row]) -> Tables:
    """One, in the order in which everything was trained."""
    return [(ACCURACY_HEADINGS, [_accuracy_cells(row) for row in rows])]


def _format_cells(row: Row) -> tuple[str, ...]:
    times = []
    for what in ("forward", "training"):
        times += [_ms(row[f"{what}_ms"]), f"{1 / row[f'{what}_to_dense']:.1f}x"]
    sizes = (f"{row[f'{what}_bytes'] / MEBIBYTE:.1f}" for what in ("forward", "training"))
    return (
        *(row["budget"], row["modes"], str(row["steps"])),
        _name(row["format"]),
        _ranks(row["ranks"]),
        *(f"{row[key]:,}" for key in ("parameters", "macs")),
        *times,
        *sizes,
    )


def _order_cells(row: Row) -> tuple[str, ...]:
    figures = [
        cell
        for each in (row[order] for order in ORDERS)
        for cell in (f"{each['macs']:,}", f"{each['copied']:,}", _ms(each["ms"]))
    ]
    modes = " x ".join(map(str, row["modes"]))
    numbers = (f"{row[key]:,}" for key in ("terms", "rank", "parameters"))
    return (modes, *numbers, *figures, f"{row['to_better']:.2f}")


def _tednet_cells(row: Row) -> tuple[str, ...]:
    cells = [row["format"], row["setting"], f"{row['parameters']:,}", f"{row['difference']:.0e}"]
    for what in ("product", "forward", "training"):
        times = row[f"{what}_ms"]
        cells.append(_ms(times["tednet"]))
        for name in ("ours", "kcp"):
            cells += [_ms(times[name]), f"{row[f'{what}_faster_{name}']:.1f}x"]
    return tuple(cells)


def _accuracy_cells(row: Row) -> tuple[str, ...]:
    heads = (f"{one['mean']:.1f} ({one['least']:.1f} to {one['most']:.1f})" for one in row["heads"])
    ranks = "; ".join(_ranks(ranks) for ranks in row["ranks"].values())
    return (
        *(row["task"], row["cell"], _name(row["format"]), " and ".join(heads)),
        *(f"{row['input_parameters']:,}", f"{row['input_ratio']:.1f}x"),
        *(f"{row['parameters']:,}", f"{row['ratio']:.1f}x"),
        ranks,
        f"{row['sequences']:,} x {row['epochs']}",
        f"{row['seconds']:.1f}",
    )


def _name(name: str) -> str:
    return f"**{name}**" if name.startswith("kcp") else name


def _ranks(ranks: Sequence[int] | None) -> str:
    return ", ".join(map(str, ranks or ()))


def _ms(times: dict[str, float]) -> str:
    return f"{times['p50']:.1f} ({times['p10']:.1f} to {times['p90']:.1f})"
