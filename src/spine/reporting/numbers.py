"""How numbers are written in tables and on pages."""

from __future__ import annotations

import math
from datetime import timedelta


def decimals(value: float) -> str:
    """Formats a metric: 0.7512."""
    return f"{value:.4f}"


def significant(value: float, digits: int = 3) -> str:
    """Formats a number with some significant digits and no exponent: 0.0152, 3.50, 1,230."""
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


def duration(seconds: float) -> str:
    """Formats a time as hours:minutes:seconds."""
    return str(timedelta(seconds=round(seconds)))
