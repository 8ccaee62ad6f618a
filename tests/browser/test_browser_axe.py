"""No page has a serious accessibility violation by axe-core, wide and on a phone, light and dark."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = [pytest.mark.browser]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WIDE = {"viewport": {"width": 1440, "height": 900}}
PAGES = (
    "chat", "compare", "review", "mine", "adjudicate", "results", "studies", "models", "admin",
)  # fmt: skip
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}


def violations(tab: Any) -> list[str]:
    """What axe finds on the page that is open, serious or critical, each with its first place."""
    told = Axe().run(tab.page, options=RULES).response
    assert len(told["passes"]) > 5, tab.page.url  # it did look
    found = told["violations"]
    return [
        f"{tab.page.url}: {v['id']}: {v['help']}: {v['nodes'][0]['html'][:200]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_no_page_has_a_serious_violation(
    signed_in: Any, open_tab: Any, scheme: str, size: dict[str, Any]
) -> None:
    size = {**size, "reduced_motion": "reduce"}  # no colour is judged half way to another
    tab = signed_in("admin", color_scheme=scheme, **size)
    found = []
    for name in PAGES:
        tab.open(f"/zh/{name}/")
        found += violations(tab)
    tab.page.goto(tab.page.url.replace("/zh/admin/", "/zh/account"))
    found += violations(tab)
    tab.open("/zh/compare/")
    tab.ask("头疼三天")
    tab.state("votable")
    found += violations(tab)
    tab.page.locator(".flag-button:visible").first.click()
    tab.page.locator(".flag-list").wait_for()
    found += violations(tab)
    tab.page.click(".flag-list [data-close]")
    tab.press("p")
    tab.page.locator(".pause-cover").wait_for()
    found += violations(tab)
    tab.press("p")
    guest = open_tab(color_scheme=scheme, **size)
    for path in ("/zh/sign-in", "/zh/nothing-here"):
        guest.expected.append("404")
        guest.open(path)
        found += violations(guest)
    assert found == []
