"""large runs of the judge through the OpenAI Batch API: half the price, within a day, the same kept replies.

    python -m training.batch configs/judge.toml --answers A.jsonl B.jsonl [--no-wait] [--batch ID]
    python -m training.huatuo_judge JUDGE.toml A.json B.json --in-batches [--no-wait] [--batch ID]
    python -m training.rubric_grading configs/rubric_grading.toml ... --in-batches [--no-wait] [--batch ID]

Asks what training.judge (or the other two) would ask and keeps the replies where it looks for them; when all are there,
the verdicts are written as by it. Each batch is noted under the cache (batches/) before it is made, and carries the
hash of its requests: a run that was killed at any point, or told --no-wait, goes on with the same batches and pays for
none twice. What a batch that expired, failed in part or was cancelled did answer is kept; the rest makes the next one,
an unreadable reply too, three times at most. A batch cannot be stopped at a cap, so one that could pass it is not made.
Exit status: 0 done; 2 an error, or some requests were never answered; 4 still under way (--no-wait).
"""

import argparse
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from huatuo.errors import HuatuoError, NoData
from training.batches import Batches
from training.endpoint import TRIES, Endpoint, Question
from training.judge import Judge, Pair, confirm, finish, options, prepare, run
from training.spending import CapReached, Estimate

STOPPED = "stopped; the same command goes on from here, and finds the batches that are under way"


def collect(batches: Batches, keys: Collection[str], wait_s: float | None) -> bool:
    """Follows the batches that hold one of these custom ids until their replies are kept; makes those noted only.

    False if some are still under way and nobody waits (wait_s None).
    """
    while True:
        with batches.locked():
            for note in batches.own(keys):
                seen = batches.look(note if note.id else batches.make(note))
                if seen.merged:
                    counts = (seen.counts or {}).items()
                    told = ", ".join(f"{key} {count:,}" for key, count in counts)
                    print(f"{seen.id} {seen.status}: {told}", flush=True)
                elif seen.status != note.status:
                    print(f"{seen.id} {seen.status}: {seen.requests:,} requests", flush=True)
            if not batches.own(keys):
                return True
        if wait_s is None:
            return False
        time.sleep(wait_s)


def add_batch_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say how batches are waited for."""
    parser.add_argument(
        "--batch", action="append", default=[], metavar="ID", help="go on with this batch"
    )
    parser.add_argument("--no-wait", action="store_true", help="batches: look once, do not wait")
    parser.add_argument("--every-s", type=float, default=60.0, help="batches: between two looks")


def through_batches(
    endpoint: Endpoint,
    missing: Callable[[], list[Question]],
    allow: Callable[[list[Question]], bool],
    share: float,
    given: argparse.Namespace,
) -> int | None:
    """Asks in batches what has no reply yet; None once nothing is missing, else the exit status (see the module).

    missing: the questions without a readable reply. allow: says what they cost, raises if that is too dear, False to
    stop there. share: batch_price. given: the flags of add_batch_flags. Raises NoData for questions that no batch answers, CapReached.
    """
    batches, wait_s = Batches(endpoint, share), None if given.no_wait else given.every_s
    with batches.locked():
        adopted = [batches.adopt(id) for id in given.batch]
    if given.estimate:
        allow(missing())
        return 0
    keys = {endpoint.key(question) for question in missing()}.union(*map(batches.ids, adopted))
    if not collect(batches, keys, wait_s):
        return _under_way()
    for _ in range(TRIES):
        with batches.locked():
            left = missing()
            if not allow(left):
                return 0
            if not left:
                return None
            batches.submit(left)
        keys = {endpoint.key(question) for question in left}
        if not collect(batches, keys, wait_s):
            return _under_way()
        if keys == {endpoint.key(question) for question in missing()}:
            break  # no reply to any; one that cannot be read is asked anew under another key
    left = missing()
    if left:
        raise NoData(
            f"{len(left):,} requests have no reply; the same command asks them again in a batch, or without batches "
            "they are asked at once"
        )
    return None


def allowed(
    endpoint: Endpoint,
    left: Sequence[Question],
    estimate: Estimate,
    share: float,
    above: float,
    given: argparse.Namespace,
) -> bool:
    """Prints what a batch will take; False for --estimate. share: batch_price; above: confirm_above.

    Raises ConfigError for one dearer than `above` without --yes, CapReached for one that could pass a cap.
    """
    cost = None if estimate.cost is None else estimate.cost * share
    cheaper = replace(estimate, cost=cost)
    print(f"in batches: {cheaper}", flush=True)
    if given.estimate:
        return False
    if left:
        confirm(endpoint, above, cheaper, yes=given.yes)
        refuse_beyond_caps(endpoint, left, share)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Goes through the batches; for the exit status see the module."""
    parser = options("training.batch", __doc__)
    add_batch_flags(parser)
    given = parser.parse_args(arguments)
    try:
        judge, pairs = prepare(given)
        return _run(judge, pairs, given)
    except (HuatuoError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130


def _run(judge: Judge, pairs: Sequence[Pair], given: argparse.Namespace) -> int:
    def allow(left: list[Question]) -> bool:
        config, estimate = judge.config, judge.estimate(pairs)
        return allowed(
            judge.endpoint, left, estimate, config.batch_price, config.confirm_above, given
        )

    def missing() -> list[Question]:
        return [question for question, _ in judge.missing(pairs)]

    status = through_batches(judge.endpoint, missing, allow, judge.config.batch_price, given)
    if status is not None:
        return status
    rows, stopped = run(judge, pairs)
    return finish(judge, rows, stopped, given, len(pairs))


def _under_way() -> int:
    print("under way; the same command looks again")
    return 4


def refuse_beyond_caps(endpoint: Endpoint, left: Sequence[Question], share: float) -> None:
    """Raises CapReached for a batch that could pass a cap: it cannot be stopped on its way."""
    limits = endpoint.purse.limits
    sizes = [endpoint.size(question) for question in left]
    sent, received = (sum(size[part] for size in sizes) for part in (0, 1))
    most = limits.cost(sent, received) * share
    for key, cap, needed in (
        ("max_calls", limits.max_calls, float(len(left))),
        ("max_total_tokens", limits.max_total_tokens, sent + received),
        ("max_cost", limits.max_cost, most),
    ):
        if cap and needed > cap:
            raise CapReached(
                f"{key}: the batch could take {needed:,.2f} of {cap:,.2f} allowed and cannot be stopped on its way; "
                "raise it, or ask for fewer cases"
            )


if __name__ == "__main__":
    raise SystemExit(main())
