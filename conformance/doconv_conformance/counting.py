"""Numbers of things in words."""


def counted(number: int, thing: str) -> str:
    """`0 layers`, `1 layer`, `2 layers`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
