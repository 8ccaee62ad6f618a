"""A protocol written as a file and read back is the same protocol, down to its hash."""

from pathlib import Path

import pytest

from huatuo.study_files import read_study
from huatuo.study_toml import to_toml
from reviews.protocol import CRITERIA, Closing, Criterion, Protocol

TITLES = {"title_zh": "单轮", "title_en": "One turn"}
ODD = '他说："好"\\ # [x] = \'y\' "" ""'
OWN = Criterion("tone", "preference", "语气", "Tone", True)
READY = tuple(CRITERIA.values())


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol("plain", **TITLES),
        Protocol("a name = [odd]", title_zh=ODD, title_en='"""', notes=ODD * 100),
        Protocol("long", **TITLES, notes="很长的说明 " * 600 + "\n第二行\n\n  third"),
        Protocol("blanks", **TITLES, notes=("x" * 199 + "   \n  ") * 8),
        Protocol("all", **TITLES, language="en", kind="multi", contestants=("a", "b-2"),
                 criteria=(*READY, OWN), raters=("王医生", "O'Neil"), overlap=2,
                 gold={"q.1": "a", 'q "2"': "tie"}, pairing="active", seed=7,
                 closing=Closing(100, "2026-12-31", True, 0.01), adjudicate=True,
                 safety_flags=False, better_answers=False, fastest_s=2.5, consent_id="IRB 7/26"),
        Protocol("order", **TITLES, criteria=(OWN, READY[0])),
        Protocol("required", **TITLES,
                 criteria=(Criterion("asking", "scale", "追问", "Asking back", True), READY[0])),
        Protocol("other words", **TITLES, criteria=(Criterion("asking", "scale", "问", "Ask"),)),
        Protocol("many", **TITLES, raters=tuple(f"rater number {n}" for n in range(60)), overlap=50),
        Protocol("same", **TITLES, closing=Closing(votes=1)),
    ],
    ids=lambda protocol: protocol.name,
)  # fmt: skip
def test_a_written_protocol_is_read_back_with_the_same_hash(
    protocol: Protocol, tmp_path: Path
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(to_toml(protocol), encoding="utf-8")
    assert read_study(path) == protocol
    assert read_study(path).sha256 == protocol.sha256
