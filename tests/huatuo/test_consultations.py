"""Whole consultations over real HTTP: a server that plays both roles as told, and tries to give the truth away."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from huatuo.acting import Line, ModelPatient, Patient, RulePatient
from huatuo.config import Generation, ModelConfig
from huatuo.consultations import (
    Consultation,
    Job,
    Journal,
    Setting,
    key_of,
    play,
    play_all,
    read_consultations,
)
from huatuo.engines.base import Deadlines
from huatuo.engines.remote import RemoteEngine
from huatuo.errors import BadCases
from huatuo.messages import Conversation
from huatuo.patient import PatientCase, make_case

STORY = (
    "疾病：\n左眼发红\n病情描述：\n昨天下午发现左眼发红，有一点痒，没有发烧。滴了三次眼药水，没见好转。\n"
    "希望获得的帮助：\n需要去看医生吗\n患病多久：\n一周内\n医生给您发来一个提醒：\nDialogue\n医生：\n"
    "先用冷毛巾敷一敷再滴抗生素眼药水三天\n病人：\n好的"
)
DOCTOR = (
    "病情摘要及初步印象：\n过敏性结膜炎\n总结建议：\n建议您使用托百士滴眼液，4次每日，间隔一小时。"
)
SECRETS = ("结膜炎", "托百士", "冷毛巾", "眼科")
CASE = make_case("7", STORY, DOCTOR, "眼科")
Said = Callable[[dict[str, Any]], str | tuple[str, str]]


@dataclass
class Server:
    """Answers each model's requests by its function: a text, or (text, finish reason)."""

    says: dict[str, Said]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    def to(self, model: str) -> list[dict[str, Any]]:
        return [body for body in self.bodies if body["model"] == model]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(line for line in head.split("\r\n") if line.startswith("content-length"))
            body = json.loads(await reader.readexactly(int(length.split(":")[1])))
            self.bodies.append(body)
            said = self.says[body["model"]](body)
            text, reason = said if isinstance(said, tuple) else (said, "stop")
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            )
            for delta, finish in (({"content": text}, None), ({}, reason)):
                if finish == "":
                    break
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                event = {"id": "1", "object": "chat.completion.chunk", "created": 0,
                         "model": body["model"], "choices": [choice]}  # fmt: skip
                writer.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            writer.write(b"data: [DONE]\n\n")
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def serving(**says: Said) -> AsyncIterator[Server]:
    server = Server(says)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def engine(server: Server, model: str) -> RemoteEngine:
    config = ModelConfig(
        name=model, title_zh=model, title_en=model, engine="remote", model=model,
        base_url=f"http://127.0.0.1:{server.port}/v1", leaves_country=False,
        generation=Generation(max_new_tokens=400),
    )  # fmt: skip
    return RemoteEngine(config)


def asks(body: dict[str, Any]) -> str:
    turn = sum(message["role"] == "user" for message in body["messages"])
    return ("您好，痒吗？有没有发烧？", "考虑眼部炎症，建议到眼科看。", "请注意休息。")[
        min(turn, 3) - 1
    ]


def consult(
    setting: Setting | None = None, case: PatientCase = CASE, *, rule: bool = False, **says: Said
) -> tuple[Consultation, Server]:
    async def run() -> tuple[Consultation, Server]:
        async with serving(**{"doctor": asks, **says}) as server:
            patient: Patient = RulePatient() if rule else ModelPatient(engine(server, "patient"))
            played = await play(
                case, patient, engine(server, "doctor"), setting or Setting(turns=3)
            )
            return played, server

    return asyncio.run(run())


def heard(server: Server, model: str = "doctor") -> str:
    return json.dumps([body["messages"] for body in server.to(model)], ensure_ascii=False)


def test_a_whole_consultation_with_the_rule_patient() -> None:
    played, server = consult(rule=True)
    assert played.finish == "complete" and len(played.turns) == 3
    assert played.turns[0].patient == CASE.opener
    assert "没有发烧" in played.turns[1].patient and played.turns[2].patient.endswith("麻烦您了。")
    assert 0 in played.told and not played.guards
    assert [len(body["messages"]) for body in server.to("doctor")] == [1, 3, 5]


def test_a_model_in_the_role_hears_the_facts_and_nothing_of_the_truth() -> None:
    played, server = consult(patient=lambda _: "有点痒，不发烧。")
    first = server.to("patient")[0]["messages"]
    assert [message["role"] for message in first] == ["user", "assistant", "user"]
    assert "滴了三次眼药水" in first[0]["content"] and "医生说：您好，痒吗" in first[2]["content"]
    for secret in SECRETS[:3]:
        assert secret not in heard(server, "patient") and secret not in heard(server)
    assert played.turns[1].patient == "有点痒，不发烧。"


@pytest.mark.parametrize(
    "leak",
    [
        "我得的是过敏性结膜炎。",
        "医生说是结 膜 炎。",
        "上次让我使用托百士滴眼液，4次每日，间隔一小时。",
        "先用冷毛巾敷一敷再滴抗生素眼药水三天，对吗？",
    ],
)
def test_a_patient_that_leaks_is_asked_again_and_the_assistant_never_hears_it(leak: str) -> None:
    said = iter([leak, leak, "有点痒。", "还有别的办法吗？"])
    played, server = consult(patient=lambda _: next(said))
    assert played.finish == "complete" and played.turns[1].patient == "有点痒。"
    assert played.guards == {"leak": 2}
    seeds = [body["seed"] for body in server.to("patient")]
    assert len(set(seeds)) == len(seeds)
    assert "不该知道" in server.to("patient")[1]["messages"][-1]["content"]
    for secret in SECRETS[:3]:
        assert secret not in heard(server).replace(" ", "")


def test_a_patient_that_leaks_each_time_loses_the_sentence() -> None:
    played, server = consult(Setting(turns=2), patient=lambda _: "有点痒。我得的是过敏性结膜炎。")
    assert played.finish == "complete" and played.turns[1].patient == "有点痒。"
    assert played.guards == {"leak": 3, "mended": 1}
    assert "结膜炎" not in heard(server)


def test_a_patient_with_nothing_but_leaks_ends_the_consultation_unfinished() -> None:
    played, server = consult(patient=lambda _: "是过敏性结膜炎吗？")
    assert played.finish == "patient" and not played.is_finished
    assert len(server.to("patient")) == 3 and len(server.to("doctor")) == 1
    assert "结膜炎" not in heard(server)


class Careless:
    """A patient without guards of its own."""

    kind = "careless"

    async def say(self, case: PatientCase, said: Conversation, *, seed: int, last: bool) -> Line:
        return Line("医生说我得了过敏性结膜炎。", {})


def test_words_that_no_guard_of_the_patient_held_back_are_never_sent() -> None:
    async def run() -> tuple[Consultation, Server]:
        async with serving(doctor=asks) as server:
            return await play(CASE, Careless(), engine(server, "doctor"), Setting(turns=3)), server

    played, server = asyncio.run(run())
    assert (played.finish, played.guards) == ("patient", {"leak": 1}) and len(played.turns) == 1
    assert "give the hidden truth away" in played.problem and "结膜炎" not in heard(server)


def test_a_consultation_that_was_stopped_goes_on_where_it_stood(tmp_path: Path) -> None:
    setting, file = Setting(turns=3), tmp_path / "journal.jsonl"

    async def run(says: Said) -> tuple[Consultation, Server]:
        async with serving(doctor=says) as server:
            job = Job(CASE, RulePatient(), engine(server, "doctor"), "k")
            return (await play_all([job], setting, Journal(file)))["k"], server

    def fails(body: dict[str, Any]) -> str | tuple[str, str]:
        return asks(body) if len(body["messages"]) < 5 else ("您", "length")

    whole = asyncio.run(run(asks))[0]
    file.unlink()
    broken, server = asyncio.run(run(fails))
    assert broken.finish == "assistant" and len(server.bodies) == 3
    assert not read_consultations(file) and len(Journal(file).begun["k"].turns) == 2
    found, server = asyncio.run(run(asks))
    assert len(server.bodies) == 1  # only what is missing
    assert found.is_finished and found.conversation == whole.conversation
    assert (found.told, found.guards) == (whole.told, whole.guards)
    assert Journal(file).done.keys() == {"k"} and not Journal(file).begun


def test_what_the_assistant_named_the_patient_may_repeat() -> None:
    played, _ = consult(
        Setting(turns=2), doctor=lambda _: "考虑过敏性结膜炎。", patient=lambda _: "结膜炎严重吗？"
    )
    assert played.finish == "complete" and not played.guards


@pytest.mark.parametrize(
    ("guard", "bad"),
    [
        ("flip", "建议您多休息，及时就医。"),
        ("flip", "您可以服用阿莫西林。"),
        ("flip", "作为一名医生，我认为您没事。"),
        ("flip", "痒。\n医生：多久了？"),
        ("repetition", "医生您好，左眼发红"),
        ("long", "有点痒" * 70 + "。"),
        ("empty", "  "),
        ("cut", ("有点痒。我", "length")),
    ],
)
def test_each_guard_acts_and_the_next_try_counts(guard: str, bad: str | tuple[str, str]) -> None:
    said = iter([bad, "有一点痒。"])
    played, server = consult(Setting(turns=2), patient=lambda _: next(said))
    assert played.finish == "complete" and played.turns[1].patient == "有一点痒。"
    assert guard in played.guards
    assert len(server.to("patient")) == 2


def test_the_name_of_the_role_is_no_part_of_the_words() -> None:
    played, _ = consult(Setting(turns=2), patient=lambda _: "患者：有点痒。")
    assert played.turns[1].patient == "有点痒。"


def test_a_patient_that_only_repeats_itself_is_heard_and_counted() -> None:
    played, _ = consult(patient=lambda _: "有点痒。")
    assert played.finish == "complete" and played.guards == {"repetition": 3, "mended": 1}


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (("考虑", "length"), "cut off"),
        ((" ", "stop"), "Refused"),
        (("考虑", ""), "Truncated"),
        (("不行", "content_filter"), "Refused"),
    ],
)
def test_an_answer_that_failed_leaves_the_consultation_unfinished(
    bad: tuple[str, str], problem: str
) -> None:
    def second(body: dict[str, Any]) -> str | tuple[str, str]:
        return asks(body) if len(body["messages"]) == 1 else bad

    played, _ = consult(rule=True, doctor=second)
    assert played.finish == "assistant" and problem in played.problem
    assert not played.is_finished and len(played.turns) == 2 and not played.turns[1].answer


def test_a_server_of_the_patient_that_fails_is_the_patients_failure() -> None:
    def filtered(_: dict[str, Any]) -> tuple[str, str]:
        return "有", ""

    played, server = consult(patient=filtered)
    assert played.finish == "patient" and "Truncated" in played.problem
    assert len(server.to("doctor")) == 1


def test_red_flags_in_the_patients_words_are_noted_with_their_turn() -> None:
    case = make_case("9", STORY.replace("左眼发红\n病", "胸口压榨样疼，出冷汗\n病"), DOCTOR, "内科")
    played, _ = consult(Setting(turns=1), case, rule=True)
    assert played.red_flags and set(played.red_flags.values()) == {1}


def jobs_of(server: Server, setting: Setting) -> list[Job]:
    patient = ModelPatient(engine(server, "patient"))
    return [
        Job(CASE, patient, engine(server, name), key_of(CASE, {"model": "patient"}, {"model": name}, setting))
        for name in ("doctor", "other")
    ]  # fmt: skip


def test_both_assistants_meet_the_same_patient() -> None:
    setting = Setting(turns=3, seed=5)

    async def run() -> list[list[int]]:
        seeds = []
        for name in ("doctor", "other"):
            says: dict[str, Said] = {"doctor": asks, "other": asks, "patient": lambda _: "有点痒。"}
            async with serving(**says) as server:
                job = next(job for job in jobs_of(server, setting) if job.assistant.name == name)
                await play(CASE, job.patient, job.assistant, setting)
                seeds.append([body["seed"] for body in server.to("patient")])
        return seeds

    one, other = asyncio.run(run())
    assert one == other and len(set(one)) == len(one) > 1


def test_a_finished_consultation_is_kept_at_once_and_never_played_twice(tmp_path: Path) -> None:
    file = tmp_path / "kept/journal.jsonl"
    broken = {"on": True}

    def other(body: dict[str, Any]) -> str | tuple[str, str]:
        return ("啊", "length") if broken["on"] else asks(body)

    async def run(setting: Setting) -> tuple[dict[str, Consultation], int]:
        async with serving(doctor=asks, other=other, patient=lambda _: "有点痒。") as server:
            played = await play_all(jobs_of(server, setting), setting, Journal(file))
            return played, len(server.bodies)

    setting = Setting(turns=2)
    played, asked = asyncio.run(run(setting))
    assert sorted(said.finish for said in played.values()) == ["assistant", "complete"]
    assert [said.assistant for said in read_consultations(file)] == ["doctor"]
    broken["on"] = False
    again, later = asyncio.run(run(setting))
    assert {said.finish for said in again.values()} == {"complete"} and 0 < later < asked + 2
    assert asyncio.run(run(setting))[1] == 0
    assert asyncio.run(run(setting))[0] == again
    assert (
        asyncio.run(run(replace(setting, seed=1)))[1] > 0
    )  # other settings are another consultation


def test_a_torn_last_line_is_dropped_and_the_next_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    one, _ = consult(Setting(turns=1), rule=True)
    Journal(file).add(replace(one, key="1"))
    Journal(file).add(replace(one, key="2"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    journal = Journal(file)
    assert set(journal.done) == {"1"}
    journal.add(replace(one, key="3"))
    assert [said.key for said in read_consultations(file)] == ["1", "3"]
    assert read_consultations(file)[0] == replace(one, key="1")


@pytest.mark.parametrize("line", [b"{}", b"[]", b"x", b'{"turns": [{"a": 1}]}', b"\xff"])
def test_damage_before_the_last_line_is_named(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_bytes(line + b"\n")
    with pytest.raises(BadCases, match=r"journal\.jsonl, line 1"):
        Journal(file)


def test_an_unfinished_consultation_is_not_kept(tmp_path: Path) -> None:
    played, _ = consult(patient=lambda _: "是过敏性结膜炎吗？")
    with pytest.raises(ValueError, match="unfinished"):
        Journal(tmp_path / "journal.jsonl").add(played)


def test_a_deadline_ends_the_consultation() -> None:
    def slow(_: dict[str, Any]) -> str:
        import time

        time.sleep(0.4)
        return "迟了"

    setting = Setting(turns=1, deadlines=Deadlines(0.1, 0.1, 0.2))
    played, _ = consult(setting, rule=True, doctor=slow)
    assert played.finish == "assistant"
