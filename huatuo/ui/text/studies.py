"""words of the page that makes, freezes and closes studies."""

from huatuo.ui.text.language import Words

WORDS: Words = {
    "page.studies": {"zh": "研究", "en": "Studies"},
}
