"""the report as HTML: chapters and sections as blocks, and the whole as one self-contained file."""

import html as escape
from collections.abc import Mapping
from pathlib import Path

from huatuo.report import contents, methods
from huatuo.report.contents import Chapter
from huatuo.report.tables import Section, to_html
from huatuo.report.teller import Teller
from huatuo.ui.text import LANGUAGES, Language
from reviews.findings import Findings

SHORT = 14
"""Rows up to which a table is kept on one printed page."""
STYLE = Path(__file__).with_name("report.css")


def chapter(one: Chapter, teller: Teller, *, open_tables: bool = False) -> str:
    """A chapter with all of its sections; "" for one without any."""
    if not one.sections:
        return ""
    title = _text(teller.say(f"report.chapter.{one.key}"))
    body = "".join(section(part, teller, open_tables=open_tables) for part in one.sections)
    return f'<section class="chapter"><h2>{title}</h2>{body}</section>'


def section(one: Section, teller: Teller, *, open_tables: bool = False) -> str:
    """Title, sentences, drawings and the table behind them."""
    title = _text(teller.say(f"report.section.{one.key}"))
    parts = [f'<section class="part" id="fig-{one.key}"><h3>{title}</h3>']
    parts += [f"<p>{_text(sentence)}</p>" for sentence in one.sentences]
    parts += [f'<p class="caution">{_text(caution)}</p>' for caution in one.cautions]
    parts += one.drawings
    if one.table is not None and one.table.rows:
        words = _text(teller.say("report.table"))
        is_open = " open" if open_tables or not one.drawings else ""
        short = " short" if len(one.table.rows) <= SHORT else ""
        parts.append(
            f'<details class="table{short}"{is_open}><summary>{words}</summary>'
            f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">'
            f"{to_html(one.table, teller)}</div></details>"
        )
    return "".join([*parts, "</section>"])


def document(found: Findings, tellers: Mapping[Language, Teller], language: Language) -> str:
    """The whole report as one HTML file without script or network, ready to be printed.

    tellers: by language; the methods paragraph is told in each, the one of `language` first.
    """
    teller = tellers[language]
    title = _title(found, teller)
    lead = "".join(f'<p class="finding">{_text(s)}</p>' for s in contents.summary(found, teller))
    counts = "".join(f'<p class="quiet">{_text(s)}</p>' for s in contents.counts(found, teller))
    chapters = "".join(
        chapter(one, teller, open_tables=True) for one in contents.chapters(found, teller)
    )
    return (
        f'<!doctype html>\n<html lang="{"zh-CN" if language == "zh" else "en"}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{_text(title)}</title><style>{STYLE.read_text(encoding='utf-8')}</style></head><body><main>"
        f'<header><p class="quiet">{_text(teller.say("report.kind"))}</p><h1>{_text(title)}</h1>{counts}</header>'
        f'<section class="lead">{lead}</section>{chapters}{_methods(found, tellers, language)}'
        f"<footer>{_text(teller.say('report.footer'))}</footer></main></body></html>\n"
    )


def _title(found: Findings, teller: Teller) -> str:
    if found.study is not None:
        protocol = found.study.protocol
        title = protocol.title_zh if teller.language == "zh" else protocol.title_en
        return title or found.name
    return found.name or teller.say("report.all")


def _methods(found: Findings, tellers: Mapping[Language, Teller], language: Language) -> str:
    order = [language, *(other for other in LANGUAGES if other != language)]
    told = "".join(
        f'<p class="methods" lang="{"zh-CN" if key == "zh" else "en"}">'
        f"{_text(methods.paragraph(found, tellers[key]))}</p>"
        for key in order
    )
    title = _text(tellers[language].say("report.chapter.methods"))
    return f'<section class="chapter" id="methods"><h2>{title}</h2>{told}</section>'


def _text(words: str) -> str:
    return escape.escape(words)
