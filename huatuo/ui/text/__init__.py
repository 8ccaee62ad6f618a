"""every visible string of the app, in Chinese and in English, keyed by meaning; one file per page."""

from huatuo.ui.text import (
    account,
    admin,
    card,
    chat,
    duel,
    errors,
    frame,
    mine,
    models,
    rating,
    report,
    report_columns,
    report_sentences,
    results,
    review,
    signin,
    studies,
)
from huatuo.ui.text.chat import EXAMPLES
from huatuo.ui.text.language import LANGUAGES, Language, Words

__all__ = ["EXAMPLES", "LANGUAGES", "TEXT", "Language", "say"]

_FILES = (
    frame,
    errors,
    chat,
    duel,
    card,
    rating,
    review,
    mine,
    results,
    report,
    report_columns,
    report_sentences,
    studies,
    admin,
    models,
    signin,
    account,
)


def _all() -> Words:
    """Every file's strings; a key in two files is a fault of ours."""
    every: Words = {}
    for file in _FILES:
        if double := every.keys() & file.WORDS.keys():
            raise KeyError(f"{file.__name__}: {sorted(double)} stand in another file too")
        every.update(file.WORDS)
    return every


TEXT: Words = _all()


def say(key: str, language: Language, **values: object) -> str:
    """The string named `key` in `language`, with `{name}` filled from `values`.

    Raises KeyError for an unknown key: a missing string is a fault of ours, seen by the tests.
    """
    text = TEXT[key][language]
    return text.format(**values) if values else text
