"""Numbers: short texts of numbers for people, and round values for the ticks of an axis."""

from __future__ import annotations

import math

UNITS = ("", "k", "M", "G", "T", "P", "E")


def percent(value: float | None) -> str:
    """A fraction in percent: ``90.3 %``; a dash for None.

    >>> percent(0.9034)
    '90.3 %'
    """
    return "-" if value is None else f"{100 * value:.1f} %"


def short(value: float) -> str:
    """A number in at most four digits, with a unit of thousands.

    >>> short(1258496), short(0.25), short(-1500)
    ('1.26 M', '0.25', '-1.5 k')
    """
    power = min(len(UNITS) - 1, int(math.log10(abs(value)) // 3)) if abs(value) >= 1000 else 0
    return f"{value / 1000**power:.3g} {UNITS[power]}".rstrip()


def seconds(value: float | None) -> str:
    """A time: ``4.71 s``, ``12.5 min`` or ``3.5 h``; a dash for None.

    >>> seconds(4.71), seconds(750), seconds(12600)
    ('4.71 s', '12.5 min', '3.5 h')
    """
    if value is None:
        return "-"
    size, unit = next(((size, unit) for size, unit in ((3600, "h"), (60, "min")) if value >= 2 * size), (1, "s"))
    return f"{value / size:.{3 if value >= 1 else 1}g} {unit}"


def size(nbytes: int) -> str:
    """A number of bytes: ``2,640 bytes``, ``31.2 KiB``.

    >>> size(2640), size(32000)
    ('2,640 bytes', '31.2 KiB')
    """
    if nbytes < 10_000:
        return f"{nbytes:,} bytes"
    power = min(4, (nbytes.bit_length() - 1) // 10)
    return f"{nbytes / 1024**power:.3g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Round values from at most ``low`` to at least ``high``, evenly spaced; integers if ``whole``.

    >>> ticks(0.0, 9.0)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most - 1)
    step = max(1.0, step) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * place:.12g}") for place in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and their two- and fivefold where there are few powers, from at most ``low`` to at least ``high``.

    >>> log_ticks(20, 800)
    [20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
    """
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    every = max(1, math.ceil((last - first) / 6))
    factors = (1,) if last - first > 2 else (1, 2, 5)
    found = [factor * 10.0**power for power in range(first, last + every + 1, every) for factor in factors]
    below = [value for value in found if value <= low * (1 + 1e-9)] or found[:1]
    above = next(value for value in found if value >= high * (1 - 1e-9) and value > below[-1])
    return [value for value in found if below[-1] <= value <= above]
