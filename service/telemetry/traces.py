"""Where an exception nobody foresaw comes from, without a word of what it says: messages quote what they choke on."""

import traceback
from typing import Final

FRAMES_MAX: Final = 20
CAUSES_MAX: Final = 5


def traced(error: BaseException) -> dict[str, object]:
    """Log fields: the exception's type, the types that it came from, and the innermost frames of its traceback."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    causes: list[str] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and len(causes) < CAUSES_MAX:
        causes.append(_name(cause))
        cause = cause.__cause__ or cause.__context__
    return {
        "error": _name(error),
        "causes": causes,
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
