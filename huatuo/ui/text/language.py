"""the two languages of the app, and the shape of its strings."""

from typing import Literal

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
Words = dict[str, dict[Language, str]]
"""Key named by meaning -> the string in both languages."""
