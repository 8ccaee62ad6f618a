"""The export: every vote once, TRL's format, safe CSV, whole or not at all (table X)."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
import os
import random
import signal
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reviews import export as module
from reviews.export import export, export_zip, main, safe_cell
from reviews.people import People
from reviews.records import Assignment, first_tab
from reviews.store import Store
from reviews.training_rows import JUDGED

Live = Callable[..., Assignment]
FILES = [
    "README.md", "better_pairs.jsonl", "both_bad.jsonl", "dialogues.jsonl", "kto.jsonl",
    "manifest.json", "pairs.jsonl", "pairs_implicit.jsonl", "sft.jsonl", "ties.jsonl", "votes.csv",
    "votes.jsonl", "votes.parquet",
]  # fmt: skip


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.fixture
def voted(filled: Store, wang: int, li: int, live: Live) -> Store:
    """Eight prepared votes of two raters, and a dialogue."""
    for rater, choices in (
        (wang, ("left", "right", "tie", "both_bad")),
        (li, ("left", "tie", "right", "left")),
    ):
        for choice in choices:
            given = filled.next_prepared(rater, "ten")
            assert given is not None
            filled.cast_vote(
                given.id, rater, choice, reason="=1+1", ratings={"clarity": 3}, seconds=9
            )
    filled.cast_vote(live(3, left_is="b").id, wang, "left")
    return filled


def test_every_vote_is_in_exactly_one_file(voted: Store, tmp_path: Path) -> None:
    out = tmp_path / "exports" / "first"
    manifest = export(voted.database, out)
    assert sorted(p.name for p in out.iterdir()) == FILES
    assert manifest.counts == {
        "pairs.jsonl": 5, "dialogues.jsonl": 1, "ties.jsonl": 2, "both_bad.jsonl": 1, "votes.csv": 9,
        "pairs_implicit.jsonl": 5, "kto.jsonl": 8, "sft.jsonl": 0, "better_pairs.jsonl": 0,
        "votes.jsonl": 9, "votes.parquet": 9,
    }  # fmt: skip
    ids = [row["vote"] for name in JUDGED for row in lines(out / name)]
    assert sorted(ids) == sorted(row.assignment_id for row in voted.votes())
    said = json.loads((out / "manifest.json").read_text("utf-8"))
    assert said["counts"] == manifest.counts
    for name, digest in said["sha256"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert said["audit"]["last_hash"] == voted.verify_audit().last_hash
    assert said["filter"] == {
        "study": None, "criterion": None, "min_agreement": None, "language": None, "leaks": True,
        "adjudicated": False, "revision": "last",
    }  # fmt: skip
    assert not list(out.parent.glob(".*"))


def test_a_pair_holds_the_chosen_and_the_rejected_text(voted: Store, tmp_path: Path) -> None:
    export(voted.database, tmp_path / "out")
    by_id = {row.assignment_id: row for row in voted.votes()}
    for row in lines(tmp_path / "out" / "pairs.jsonl"):
        vote = by_id[row["vote"]]
        assert row["pair_scope"] == "turn"
        assert row["prompt"][0]["role"] == "user" and len(row["prompt"]) == 1
        (chosen,), (rejected,) = row["chosen"], row["rejected"]
        assert chosen["role"] == rejected["role"] == "assistant"
        winner = vote.contestant_a if vote.winner == "a" else vote.contestant_b
        assert row["chosen_model"] == winner
        assert chosen["content"].startswith(winner)
        assert rejected["content"].startswith(row["rejected_model"])


def test_the_answer_in_front_on_a_phone_is_told_and_comes_at_even_odds(
    voted: Store, tmp_path: Path
) -> None:
    export(voted.database, tmp_path / "out")
    for row in lines(tmp_path / "out" / "votes.jsonl"):
        assert row["first_tab"] == first_tab(row["vote"])
    rng = random.Random(5)
    drawn = Counter(first_tab(f"{rng.getrandbits(128):032x}") for _ in range(1000))
    assert drawn.keys() == {"left", "right"} and min(drawn.values()) > 440


def test_a_dialogue_has_no_prompt_and_two_whole_conversations(voted: Store, tmp_path: Path) -> None:
    export(voted.database, tmp_path / "out")
    (row,) = lines(tmp_path / "out" / "dialogues.jsonl")
    assert "prompt" not in row and row["pair_scope"] == "dialogue"
    assert [m["content"] for m in row["chosen"]] == ["第1问", "b1", "第2问", "b2", "第3问", "b3"]
    assert [m["role"] for m in row["rejected"]] == ["user", "assistant"] * 3


def test_ties_and_both_bad_are_kept_with_both_answers(voted: Store, tmp_path: Path) -> None:
    export(voted.database, tmp_path / "out")
    for name in ("ties.jsonl", "both_bad.jsonl"):
        for row in lines(tmp_path / "out" / name):
            assert row["answer_a"][0] == row["answer_b"][0]
            assert row["answer_a"][1]["content"].startswith(row["model_a"])


def test_the_last_revision_is_exported_with_its_count(
    voted: Store, wang: int, tmp_path: Path
) -> None:
    given = voted.previous(wang, "ten")
    assert given is not None
    voted.cast_vote(given.id, wang, "tie", revise=True)
    export(voted.database, tmp_path / "out")
    (row,) = [r for r in lines(tmp_path / "out" / "ties.jsonl") if r["vote"] == given.id]
    assert row["revisions"] == 2


def test_raters_are_numbers(voted: Store, tmp_path: Path) -> None:
    export(voted.database, tmp_path / "out")
    text = "".join(p.read_text("utf-8", "replace") for p in (tmp_path / "out").iterdir())
    assert "王医生" not in text and "Dr. Li" not in text and "user:" not in text
    assert {r["rater"] for r in lines(tmp_path / "out" / "pairs.jsonl")} == {1, 2}


def test_one_study_alone_can_be_exported(voted: Store, tmp_path: Path) -> None:
    manifest = export(voted.database, tmp_path / "out", study="ten")
    assert manifest.counts["votes.csv"] == 8
    assert manifest.counts["dialogues.jsonl"] == 0


def test_the_same_record_gives_the_same_bytes(voted: Store, tmp_path: Path) -> None:
    one, two = export(voted.database, tmp_path / "1"), export(voted.database, tmp_path / "2")
    assert one.sha256 == two.sha256
    with zipfile.ZipFile(io.BytesIO(export_zip(voted.database))) as archive:
        assert sorted(archive.namelist()) == FILES
        packed = hashlib.sha256(archive.read("pairs.jsonl")).hexdigest()
    assert packed == one.sha256["pairs.jsonl"]


REASONS = [
    '=HYPERLINK("http://e")', "+1", "-1", "@x", "\t=1", "＝1", " =1", '"=1', "a\nb", "普通", "-", "'=1",
    'a,"b"', "𠮷👩‍⚕️",
]  # fmt: skip


def test_x1_no_cell_is_a_formula_and_the_text_comes_back(
    store: Store, wang: int, live: Live, tmp_path: Path
) -> None:
    for reason in REASONS:
        store.cast_vote(live().id, wang, "left", reason=reason)
    export(store.database, tmp_path / "out")
    raw = (tmp_path / "out" / "votes.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    for row, reason in zip(rows, REASONS, strict=True):
        assert row["reason"] in (reason.strip(), "'" + reason.strip())
        for cell in row.values():
            assert not cell.lstrip(' "').startswith(module._FORMULA)


@pytest.mark.parametrize("cell", ["=1", "\r=1", "\n", "\0", "　＝1", " '+1", "\u00a0@x"])
def test_x1_odd_beginnings_are_quoted_too(cell: str) -> None:
    assert safe_cell(cell) == "'" + cell
    assert safe_cell("a" + cell) == "a" + cell


def test_x2_an_export_during_votes_is_one_state(
    path: Path, voted: Store, people: People, tmp_path: Path
) -> None:
    rater = people.add_user("busy", "physician", "h", "x").id
    stop = threading.Event()

    def vote() -> None:
        while not stop.is_set() and (given := voted.next_prepared(rater, "ten")) is not None:
            voted.cast_vote(given.id, rater, "left")
            time.sleep(0.005)

    thread = threading.Thread(target=vote)
    thread.start()
    for number in range(4):
        out = tmp_path / str(number)
        manifest = export(voted.database, out)
        told = sum(len(lines(out / name)) for name in JUDGED)
        assert told == manifest.counts["votes.csv"] == manifest.counts["votes.parquet"]
    stop.set()
    thread.join()


def test_x2_a_vote_that_comes_after_the_log_was_read_is_not_exported(
    voted: Store, wang: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = voted.next_prepared(wang, "ten")
    assert given is not None
    before, verify = voted.verify_audit(), module.audit.verify

    def verify_then_vote(db: Any) -> Any:
        found = verify(db)
        busy = threading.Thread(target=voted.cast_vote, args=(given.id, wang, "left"))
        busy.start()
        busy.join()
        return found

    monkeypatch.setattr(module.audit, "verify", verify_then_vote)
    manifest = export(voted.database, tmp_path / "out")
    assert manifest.content["audit"]["last_hash"] == before.last_hash
    assert manifest.counts["votes.csv"] == 9 == len(voted.votes()) - 1


def test_x3_a_kill_during_an_export_leaves_no_half_folder(
    path: Path, voted: Store, tmp_path: Path
) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        module._sync = die  # type: ignore[assignment]
        export(voted.database, tmp_path / "out")

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert export(voted.database, tmp_path / "out").counts["votes.csv"] == 9


def test_a_folder_with_something_in_it_is_replaced_only_by_force(
    voted: Store, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="--force"):
        export(voted.database, out)
    assert [p.name for p in out.iterdir()] == ["mine.txt"]
    export(voted.database, out, force=True)
    assert sorted(p.name for p in out.iterdir()) == FILES
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError):
        export(voted.database, tmp_path / "file", force=True)


def test_an_empty_record_exports_empty_files(store: Store, tmp_path: Path) -> None:
    assert set(export(store.database, tmp_path / "out").counts.values()) == {0}
    assert main(["--out", str(tmp_path / "o2"), "--data", str(tmp_path / "data")]) == 0


def test_the_command_fails_in_words(
    voted: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path / "data")]
    assert main(["--out", str(tmp_path / "o"), "--data", str(tmp_path / "none")]) == 1
    assert "there is no record" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "o"), *data, "--study", "nope"]) == 1
    assert "no such study; there are live, ten" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "o"), *data, "--study", "ten"]) == 0
    assert "last hash" in capsys.readouterr().out
    assert main(["--out", str(tmp_path / "o"), *data]) == 1
    assert "--force" in capsys.readouterr().err


def test_the_files_load_with_datasets(voted: Store, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    export(voted.database, tmp_path / "out")
    for name in JUDGED:
        file = str(tmp_path / "out" / name)
        loaded = datasets.load_dataset(
            "json", data_files=file, split="train", cache_dir=str(tmp_path / "c")
        )
        assert len(loaded) == len(lines(tmp_path / "out" / name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pairs.jsonl", "dialogues.jsonl"])
def test_trls_reward_trainer_takes_a_step_on_it(voted: Store, tmp_path: Path, name: str) -> None:
    datasets = pytest.importorskip("datasets")
    trl = pytest.importorskip("trl")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BloomConfig, BloomForSequenceClassification, PreTrainedTokenizerFast

    export(voted.database, tmp_path / "out")
    file = str(tmp_path / "out" / name)
    rows = datasets.load_dataset(
        "json", data_files=file, split="train", cache_dir=str(tmp_path / "c")
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *alphabet])}
    raw = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}</s>{% endfor %}"
    )
    config = BloomConfig(
        vocab_size=len(words), hidden_size=16, n_layer=1, n_head=2, num_labels=1, pad_token_id=0
    )
    settings = trl.RewardConfig(
        output_dir=str(tmp_path / "run"), max_steps=1, per_device_train_batch_size=2, use_cpu=True,
        bf16=False, gradient_checkpointing=False, report_to=[], save_strategy="no", max_length=512,
    )  # fmt: skip
    trainer = trl.RewardTrainer(
        BloomForSequenceClassification(config),
        settings,
        train_dataset=rows,
        processing_class=tokenizer,
    )
    assert len(trainer.train_dataset) == len(rows)
    assert trainer.train().global_step == 1
