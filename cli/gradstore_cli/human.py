"""Numbers as a person reads them."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def count(n: int, noun: str = "") -> str:
    """A count with separators, and its noun.

    >>> count(1797), count(1797, "example"), count(1, "example")
    ('1,797', '1,797 examples', '1 example')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}" if noun else f"{n:,}"


def size(n_bytes: int) -> str:
    """Bytes, in powers of 1000 as disks are sold.

    >>> size(999), size(3_210_000), size(45_600_000_000)
    ('999 B', '3.2 MB', '45.6 GB')
    """
    value, unit = float(n_bytes), 0
    while value >= 999.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds, in the two largest units that matter.

    >>> duration(0.04), duration(3.21), duration(12.3), duration(200), duration(7260)
    ('0.04 s', '3.2 s', '12 s', '3 min 20 s', '2 h 1 min')
    """
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def rate(per_second: float, unit: str) -> str:
    """A speed.

    >>> rate(2995.4, "rows"), rate(0.3124, "signals")
    ('2,995 rows/s', '0.31 signals/s')
    """
    return f"{per_second:,.0f} {unit}/s" if per_second >= 10 else f"{per_second:.2g} {unit}/s"


def number(value: float) -> str:
    """A score, to four digits.

    >>> number(0.123456), number(41.2)
    ('0.1235', '41.2')
    """
    return f"{value:.4g}"
