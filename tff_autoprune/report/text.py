"""Numbers as people read them."""

from __future__ import annotations

from typing import Optional

MISSING = "–"
_DECIMAL_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def integer(value: Optional[float]) -> str:
    """Returns e.g. "56,126"."""
    return MISSING if value is None else f"{value:,.0f}"


def si(value: Optional[float], unit: str) -> str:
    """Returns e.g. "7.53 MFLOP", "56.1 kB": three digits and a decimal prefix."""
    if value is None:
        return MISSING
    for factor, prefix in _DECIMAL_UNITS:
        if abs(value) >= factor:
            return f"{_three_digits(value / factor)} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def milliseconds(value: Optional[float]) -> str:
    """Returns e.g. "1.24 ms", or microseconds below a hundredth of a millisecond."""
    if value is None:
        return MISSING
    if value < 0.1:
        return f"{_three_digits(1000 * value)} µs"
    return f"{_three_digits(value)} ms"


def percent(value: Optional[float], digits: int = 1) -> str:
    """Returns e.g. "81.2 %" of 0.812."""
    return MISSING if value is None else f"{100 * value:.{digits}f} %"


def signed(value: float, digits: int) -> str:
    """Returns a number with its sign, with a real minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def count(number: int, noun: str) -> str:
    """Returns e.g. "1 run", "12 runs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def points(value: Optional[float], error: Optional[float] = None) -> str:
    """Returns points of accuracy, e.g. "−1.2 ± 0.3" where the standard error is known."""
    if value is None:
        return MISSING
    return signed(value, 1) + ("" if error is None else f" ± {error:.1f}")


def change(before: Optional[float], after: Optional[float]) -> str:
    """Returns the relative change, e.g. "−83 %"."""
    if not before or after is None:
        return MISSING
    return f"{signed(100 * (after / before - 1), 0)} %"


def times(value: Optional[float]) -> str:
    """Returns e.g. "1.9×"."""
    if value is None:
        return MISSING
    return f"{value:.1f}×" if value < 10 else f"{value:.0f}×"


def seconds(value: Optional[float]) -> str:
    """Returns e.g. "48 s", "3 min 20 s", "2 h 5 min"."""
    if value is None:
        return MISSING
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    if magnitude >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if magnitude >= 9.995 else f"{value:.2f}"
