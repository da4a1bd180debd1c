"""Numbers as people read them."""


def counted(x: float) -> str:
    """For people: 512, 20.5 k, 1.23 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if x >= 0.9995 * size:  # which three digits round up
            return f"{x / size:.3g} {unit}"
    return f"{x:.3g}"


def duration(seconds: float) -> str:
    """For people: 3.2 s, 21 s, 5 min 20 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def several(number: int, noun: str) -> str:
    """For people: 1 seed, 2 seeds."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
