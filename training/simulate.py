"""simulated physicians: models answer training-side cases, and raters who go by the rubric vote into a real record.

    python -m training.simulate --data DIR --votes 600

A prepared study is filed and voted on through the record's own front door, so everything after it (results page,
export, reward model) sees what it would see of people. Each vote prefers the higher rubric score; small differences
are ties, a share of the other votes is flipped. All of it says "simulated", and nothing of it is a medical judgement.
The same arguments give the same pairs and the same votes on each; which rater casts which is the record's own draw.
"""

import argparse
import contextlib
import hashlib
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from tqdm import tqdm

from huatuo.config import ModelConfig, read_models
from huatuo.errors import ConfigError, HuatuoError, NoData
from huatuo.messages import Message
from huatuo.models.loaded import load_branch
from huatuo.models.trunk import Trunk, load_trunk
from huatuo.prompts import encode
from huatuo.toml import ROOT, Settings
from reviews.database import DEFAULT_NAME
from reviews.errors import RecordError
from reviews.people import People
from reviews.records import PreparedPair, PreparedTurn
from reviews.store import Store
from training.cases import Case, draw_cases
from training.rollout import Drawing, sample
from training.rubric import NOTE, RubricJudge

Choice = Literal["a", "b", "tie", "both_bad"]
SAMPLED = 1.0
"""Temperature of the policy's samples: as reinforcement learning will draw them."""
COLDEST = 0.05
"""Temperature in place of a served 0, by which sampling could not divide."""
SPARE = 1.08
"""Pairs answered for one that is used: equal and unfinished answers fall out."""
BOTH_BAD = 0.2
"""Rubric score below which both answers of a tie are called bad."""


class SimulationConfig(Settings):
    """What is simulated."""

    votes: int = Field(default=600, ge=1, description="votes to cast")
    raters: int = Field(default=5, ge=1, le=100, description="simulated physicians")
    noise: float = Field(default=0.15, ge=0, le=0.5, description="share of other votes flipped")
    ties: float = Field(default=0.2, ge=0, le=1, description="share of ties, both bad included")
    overlap: float = Field(
        default=0.3, ge=0, le=1, description="share of pairs that two raters see"
    )
    english: float = Field(default=0.1, ge=0, le=1, description="share of English questions")
    seed: int = 0
    study: str = Field(default="simulated", pattern="^simulated[^\n\t]{0,50}$")
    policy: str = Field(default="nano-hybrid", description="the model whose samples are compared")
    rivals: tuple[str, ...] = Field(default=("nano-doctor", "nano-distilled"), strict=False)


@dataclass(frozen=True)
class Match:
    """Two finished answers to one case with their rubric scores. key: what tells matches apart."""

    case: Case
    model_a: str
    model_b: str
    answer_a: str
    answer_b: str
    score_a: float
    score_b: float

    @property
    def key(self) -> str:
        """The case with both contestants."""
        return f"{self.case.id}\n{self.model_a}\n{self.model_b}"

    @property
    def difference(self) -> float:
        """Score of a less score of b, in [-1, 1]."""
        return self.score_a - self.score_b


@dataclass(frozen=True)
class Played:
    """What a simulation did. tie_margin: score difference up to which raters call a tie."""

    study: str
    pairs: int
    votes: int
    raters: int
    ties: int
    both_bad: int
    flipped: int
    tie_margin: float
    pairs_seen_twice: int


def contestants(config: SimulationConfig) -> dict[str, tuple[str, float | None]]:
    """Contestant -> (model, temperature or None for its own): the policy as served and twice sampled, the rivals."""
    sampled = {f"{config.policy}.sample{n}": (config.policy, SAMPLED) for n in (1, 2)}
    return sampled | {name: (name, None) for name in (config.policy, *config.rivals)}


def plan_matches(config: SimulationConfig, cases: Sequence[Case]) -> list[tuple[Case, str, str]]:
    """(case, contestant, contestant): half of them two samples of the policy, the rest the policy as served
    against each rival and against a sample of its own, in turn."""
    first, second = (f"{config.policy}.sample{n}" for n in (1, 2))
    others = [(config.policy, name) for name in (*config.rivals, first)]
    rng = random.Random(f"simulate/{config.seed}")
    # Two kinds of opener alternate; a step of two keeps every kind of match on both.
    plan = []
    for number, case in enumerate(cases):
        step = number // 2
        a, b = (first, second) if step % 2 else others[step // 2 % len(others)]
        plan.append((case, b, a) if rng.random() < 0.5 else (case, a, b))
    return plan


def answer_all(
    config: SimulationConfig, plan: Sequence[tuple[Case, str, str]], models: dict[str, ModelConfig]
) -> dict[tuple[str, str], str]:
    """(case id, contestant) -> finished answer; answers that did not end by themselves are left out."""
    found: dict[tuple[str, str], str] = {}
    with tqdm(total=2 * len(plan), desc="answers", unit="answer") as bar:
        for name in dict.fromkeys((config.policy, *config.rivals)):
            trunk, tokenizer = _load(models[name])
            for contestant, (owner, temperature) in contestants(config).items():
                asked = [case for case, *both in plan if contestant in both]
                if owner != name or not asked:
                    continue
                served = models[name]
                how = Drawing(
                    served.generation.max_new_tokens,
                    frozenset([tokenizer.eos_token_id]),
                    tokenizer.pad_token_id,
                    temperature or max(served.generation.temperature, COLDEST),
                )
                digest = hashlib.sha256(f"{config.seed}/{contestant}".encode()).digest()
                random_source = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
                for case, text in _answers(trunk, tokenizer, served, asked, how, random_source):
                    found[case.id, contestant] = text
                    bar.update()
    return found


def _load(config: ModelConfig) -> tuple[Trunk, Any]:
    """(trunk, tokenizer) of a model of configs/models, a branch laid over its parent included."""
    if config.path is None:
        raise ConfigError(f"{config.name}: has no path")
    if config.parent is None:
        return load_trunk(ROOT / config.path, 1, sha256=config.sha256)
    model, tokenizer = load_branch(
        ROOT / config.path,
        ROOT / config.parent,
        template=config.template,
        sha256=config.sha256,
        dtype="float32",
    )
    return Trunk(model, 1), tokenizer


def _answers(
    trunk: Trunk,
    tokenizer: Any,
    served: ModelConfig,
    asked: Sequence[Case],
    how: Drawing,
    generator: torch.Generator,
) -> Iterator[tuple[Case, str]]:
    """Each case with its finished answer, those of like length together."""
    encoded = [
        encode(
            tokenizer,
            (Message("user", case.question),),
            served.template,
            max_tokens=served.generation.context_tokens,
        ).ids
        for case in asked
    ]
    order = sorted(range(len(asked)), key=lambda i: len(encoded[i]))
    for start in range(0, len(order), how.rows):
        part = order[start : start + how.rows]
        drawn = sample(trunk, [encoded[i] for i in part], 1, how, generator)
        for row, i in enumerate(part):
            text = tokenizer.decode(drawn.ids[row][drawn.answer[row]], skip_special_tokens=True)
            if bool(drawn.finished[row]) and text.strip():
                yield asked[i], text.strip()


def play_matches(
    config: SimulationConfig, wanted: int, models: dict[str, ModelConfig]
) -> list[Match]:
    """`wanted` matches with different, finished answers. Raises NoData when there are not so many."""
    count = int(wanted * SPARE) + 4
    cases = draw_cases(count, held_out=False, seed=config.seed, english=config.english)
    plan = plan_matches(config, cases)
    said = answer_all(config, plan, models)
    judge = RubricJudge()
    matches = []
    for case, a, b in plan:
        one, other = (said.get((case.id, name), "") for name in (a, b))
        if one and other and one != other:
            scores = judge.grade(case, one).score, judge.grade(case, other).score
            matches.append(Match(case, a, b, one, other, *scores))
    if len(matches) < wanted:
        raise NoData(
            f"only {len(matches)} of {wanted} pairs have two different, finished answers; ask for fewer votes"
        )
    return matches[:wanted]


def tie_margin(differences: Sequence[float], share: float) -> float:
    """The margin within which `share` of the differences lie, as nearly as equal differences allow."""
    if not differences or share <= 0:
        return -1.0
    sizes = sorted(abs(d) for d in differences)
    return sizes[min(len(sizes), max(1, round(share * len(sizes)))) - 1]


def decide(
    config: SimulationConfig, matches: Sequence[Match], twice: int
) -> tuple[dict[str, list[Choice]], Played]:
    """The votes on each match by its key: two for the first `twice` matches, else one; and their counts.

    The share of noise is met exactly: of the votes that are no tie, the first by a seeded order are flipped.
    """
    seen = [2 if place < twice else 1 for place in range(len(matches))]
    margin = tie_margin(
        [m.difference for m, n in zip(matches, seen, strict=True) for _ in range(n)], config.ties
    )
    chosen: dict[str, list[Choice]] = {}
    for match, times in zip(matches, seen, strict=True):
        choice: Choice = "a" if match.difference > 0 else "b"
        if abs(match.difference) <= margin:
            choice = "both_bad" if max(match.score_a, match.score_b) < BOTH_BAD else "tie"
        chosen[match.key] = [choice] * times
    firm = [(key, i) for key, said in chosen.items() for i, c in enumerate(said) if c in "ab"]
    firm.sort(key=lambda k: hashlib.sha256(f"{config.seed}/flip/{k[0]}/{k[1]}".encode()).digest())
    flipped = firm[: round(config.noise * len(firm))]
    for key, place in flipped:
        chosen[key][place] = "b" if chosen[key][place] == "a" else "a"
    said = [choice for votes in chosen.values() for choice in votes]
    return chosen, Played(
        config.study,
        len(matches),
        len(said),
        config.raters,
        said.count("tie"),
        said.count("both_bad"),
        len(flipped),
        round(margin, 4),
        twice,
    )


def cast_votes(
    store: Store, config: SimulationConfig, matches: Sequence[Match], twice: int
) -> Played:
    """Files the matches as a study and lets the raters vote. Raises ConfigError if the study exists, RecordError."""
    if any(study.name == config.study for study in store.studies()):
        raise ConfigError(f"study: {config.study} is in this record already; name another")
    chosen, played = decide(config, matches, twice)
    raters = _raters(People(store.database), config.raters)
    half = len(raters) // 2
    bar = tqdm(total=played.votes, desc="votes", unit="vote")
    # The pairs of the overlap come first, once to each half of the raters, so that each gets two votes exactly.
    rounds = [(matches[:twice], raters[half:]), ([], raters[:half]), (matches[twice:], raters)]
    for place, (fresh, asked) in enumerate(rounds):
        if fresh:
            store.add_prepared(config.study, [_prepared(m) for m in fresh], "simulation")
        open_votes = len(fresh) if place != 1 else twice
        for number in range(open_votes):
            _vote(store, config, asked[number % len(asked)], chosen)
            bar.update()
    bar.close()
    return played


def _raters(people: People, count: int) -> list[int]:
    """The ids of the simulated physicians, whose password hash no password fits."""
    ids = []
    for number in range(1, count + 1):
        name = f"simulated-physician-{number}"
        user = people.user_named(name) or people.add_user(name, "physician", "!", "simulation")
        ids.append(user.id)
    return ids


def _prepared(match: Match) -> PreparedPair:
    case = match.case
    return PreparedPair(
        case.id,
        match.model_a,
        match.model_b,
        (PreparedTurn(case.question, match.answer_a, match.answer_b),),
        department=case.department,
        intent=case.kind,
        language=case.language,
        source="simulated",
    )


def _vote(
    store: Store, config: SimulationConfig, rater: int, chosen: dict[str, list[Choice]]
) -> None:
    """The rater's next pair gets the next of its votes."""
    given = store.next_prepared(rater, config.study)
    if given is None:
        raise NoData(f"{config.study}: no pair is left for simulated rater {rater}")
    given, comparison = store.view(given.id, rater)
    names = (comparison.contestant_a, comparison.contestant_b)
    straight, turned = (f"{comparison.external_id}\n{a}\n{b}" for a, b in (names, names[::-1]))
    key = straight if straight in chosen else turned
    choice: str = chosen[key].pop(0)
    if choice in ("a", "b"):
        better = names["ab".index(choice)] if key == straight else names["ba".index(choice)]
        on_left = names["ab".index(given.left_is)]
        choice = "left" if better == on_left else "right"
    digest = hashlib.sha256(f"{config.seed}/seconds/{key}".encode()).digest()
    store.cast_vote(given.id, rater, choice, reason="simulated", seconds=8.0 + digest[0] / 8)


def pairs_for(votes: int, overlap: float, raters: int) -> tuple[int, int]:
    """(pairs, how many of them are seen twice) that make so many votes; one rater sees no pair twice."""
    pairs = max(1, round(votes / (1 + overlap))) if raters > 1 else votes
    pairs = max(pairs, (votes + 1) // 2)
    return pairs, votes - pairs


def simulate(config: SimulationConfig, data: Path) -> Played:
    """Plays the whole of it into the record of the folder `data`. Raises HuatuoError, RecordError."""
    known, _ = read_models(ROOT / "configs/models")
    for name in (config.policy, *config.rivals):
        if name not in known or known[name].engine != "local":
            raise ConfigError(f"no local model in configs/models is named {name}")
    if not config.rivals:
        raise ConfigError("rivals: name at least one other model")
    pairs, twice = pairs_for(config.votes, config.overlap, config.raters)
    rng = random.Random(f"sides/{config.seed}")
    with contextlib.closing(Store.open(data / DEFAULT_NAME, rng=rng)) as store:
        if any(study.name == config.study for study in store.studies()):
            raise ConfigError(f"study: {config.study} is in this record already; name another")
        matches = play_matches(config, pairs, known)
        return cast_votes(store, config, matches, twice)


def _flags() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in SimulationConfig.model_fields.items():
        if name == "rivals":
            yield f"--{name}", {"nargs": "+", "default": list(field.default), "metavar": "NAME"}
        else:
            kind: Any = field.annotation
            yield f"--{name}", {"type": kind, "default": field.default, "help": field.description}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.simulate",
        description="Cast simulated votes into a record. " + NOTE["en"],
    )
    parser.add_argument("--data", type=Path, required=True, help="the record's folder, made anew")
    for flag, options in _flags():
        parser.add_argument(flag, **options)
    given = vars(parser.parse_args(arguments))
    data = given.pop("data")
    try:
        config = _config(given)
        played = simulate(config, data)
    except (HuatuoError, RecordError) as error:
        print(error, file=sys.stderr)
        return 2
    print(NOTE["en"])
    print(json.dumps(asdict(played)))
    return 0


def _config(given: dict[str, Any]) -> SimulationConfig:
    try:
        return SimulationConfig(**given)
    except ValueError as error:
        first = error.errors()[0] if hasattr(error, "errors") else {"loc": ("?",), "msg": "wrong"}
        raise ConfigError(f"--{first['loc'][0]}: {first['msg']}") from None


if __name__ == "__main__":
    sys.exit(main())
