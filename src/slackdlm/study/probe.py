"""What does a displaced token cost on any benchmark? The probe of arXiv 2601.22947, from questions to figures.

    answers/ARM/*.jsonl -> judgments.journal -> judgments/ARM.jsonl -> results.json -> report.html

Each model is judged against its own baseline answers, decoded without an intervention. Every stage reads files and
writes files below one folder; running the probe again finishes what is missing and changes nothing else.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from slackdlm.atomic import write_json
from slackdlm.benchmarks.answers import read_answers, read_turns
from slackdlm.errors import ConfigError
from slackdlm.journal import content_hash
from slackdlm.judging.budget import Budget
from slackdlm.judging.judges import Judge
from slackdlm.judging.plan import DryRun, dry_run, plan_judgments
from slackdlm.judging.protocols import JudgingProtocol, judging_protocol
from slackdlm.judging.run import Judged, judge_answers
from slackdlm.judgments import Game, write_judgments
from slackdlm.models.loaded import LoadedModel
from slackdlm.records import Answer, Question
from slackdlm.sampling.config import deciding, recorded
from slackdlm.sampling.intervention import Dose
from slackdlm.study.grid import Arm, Condition, Grid, answer_arm, check_arms


def answer_probe(
    arms: Sequence[Arm],
    questions: Sequence[Question],
    grid: Grid,
    output: Path,
    *,
    on_answers: Callable[[str, int], None] | None = None,
) -> None:
    """Decode the baseline answers of every arm, and those under every intervention.

    Args:
        arms: The models; each is loaded once, if any of its answers are missing.
        questions: What to ask.
        grid: How.
        output: Folder of the probe.
        on_answers: Called with the arm's name and the number of answers just finished.

    Raises:
        DataError: If a question cannot be put to a model.
        ConfigError: If the folder holds answers to other questions, by another model of the same name, or decoded in
            another way. More rates, kinds, seeds and arms may be added.
    """
    check_arms(arms)
    identity = _same_probe(arms, questions, grid, output)
    for arm in arms:

        def admit(loaded: LoadedModel, arm: Arm = arm) -> None:
            _check_device(loaded, identity, output)
            identity["arms"][arm.name] = arm.model
            output.mkdir(parents=True, exist_ok=True)
            write_json(output / "plan.json", identity)

        answer_arm(
            arm,
            questions,
            grid,
            output,
            on_load=admit,
            on_answers=None if on_answers is None else partial(on_answers, arm.name),
        )


def _same_probe(
    arms: Sequence[Arm], questions: Sequence[Question], grid: Grid, output: Path
) -> dict[str, Any]:
    """What the folder's answers have in common, with the arms it holds; ConfigError if this probe is another."""
    file = output / "plan.json"
    wanted: dict[str, Any] = {
        "sampler": recorded(grid.sampler),
        "device": None,
        "questions": content_hash(
            [[q.id, [dict(m) for m in q.messages], list(q.later_turns)] for q in questions]
        ),
        "arms": {},
    }
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        wanted |= {"arms": found["arms"], "device": found.get("device")}
        same = {
            "sampler": deciding(found["sampler"]) == deciding(wanted["sampler"]),
            "questions": found["questions"] == wanted["questions"],
        }
        for key, is_same in same.items():
            if not is_same:
                raise ConfigError(
                    f"{output}: holds a probe with other {key}; choose another output or delete the folder"
                )
        for arm in arms:
            known = found["arms"].get(arm.name, arm.model)
            if known != arm.model:
                raise ConfigError(
                    f"{output}: there {arm.name} is {known}, not {arm.model}; choose another name or output"
                )
    return wanted


def _check_device(loaded: LoadedModel, identity: dict[str, Any], output: Path) -> None:
    """One kind of device decodes a whole probe, as noise and rounding differ; the first model's is kept."""
    here = loaded.device.type
    before = identity["device"] = identity["device"] or here
    if here != before:
        raise ConfigError(
            f"{output}: holds answers decoded on {before}, {loaded.name} is on {here}; give --device {before} or "
            "another output"
        )


def num_judgments(
    protocol: JudgingProtocol,
    judge: Judge,
    questions: Sequence[Question],
    arms: Sequence[str],
    grid: Grid,
    output: Path,
) -> int:
    """Judgments of the whole probe; every answer must be there."""
    return sum(
        len(plan_judgments(protocol, judge, questions, answers, baseline).items)
        for arm in arms
        for answers, baseline in _pairings(arm, grid, output)
    )


def dry_run_probe(
    protocol: JudgingProtocol,
    judge: Judge,
    questions: Sequence[Question],
    num_arms: int,
    grid: Grid,
) -> DryRun:
    """The most that a new probe would ask, before anything is decoded: every answer fills its canvas, and no two agree.

    A token of an answer is taken for four bytes, as everywhere where tokens are guessed.
    """

    def stand_in(system: str, letter: str) -> list[Answer]:
        text = 4 * grid.sampler.canvas_length * letter
        return [Answer(q.id, system, (text,) * (1 + len(q.later_turns))) for q in questions]

    once = dry_run(
        plan_judgments(
            protocol, judge, questions, stand_in("intervened", "a"), stand_in("baseline", "b")
        )
    )
    times = num_arms * grid.num_seeds * len(grid.interventions())
    return DryRun(
        num_judgments=times * once.num_judgments,
        num_done=0,
        num_without_call=times * once.num_without_call,
        num_calls=times * once.num_calls,
        prompt_tokens=times * once.prompt_tokens,
        worst_usd=None if once.worst_usd is None else times * once.worst_usd,
    )


def pair_protocol(name: str) -> JudgingProtocol:
    """The protocol of that name; ConfigError unless it compares two answers."""
    if name == "creative-writing":  # would ask for a judge prompt first
        raise _single(name)
    protocol = judging_protocol(name)
    check_protocol(protocol)
    return protocol


def check_protocol(protocol: JudgingProtocol) -> None:
    """ConfigError unless the protocol compares two answers."""
    if protocol.num_shown != 2:
        raise _single(protocol.name)


def _single(name: str) -> ConfigError:
    return ConfigError(
        f"probe: {name} grades single answers; the probe compares each with its baseline. Use a benchmark of "
        "pairs (--benchmark pairs takes any JSONL of prompts), or answer with --intervention, then judge and compare"
    )


def judge_probe(
    protocol: JudgingProtocol,
    judge: Judge,
    questions: Sequence[Question],
    arms: Sequence[str],
    grid: Grid,
    output: Path,
    *,
    budget: Budget | None = None,
    on_judged: Callable[[int, float | None], None] | None = None,
) -> list[Judged]:
    """Judge every answer under an intervention against the same arm's baseline answer, in both orders.

    Args:
        protocol: A benchmark that compares two answers.
        judge: Whom to ask.
        questions: Of the benchmark.
        arms: Names of the arms whose answers are there.
        grid: As it was answered.
        output: Folder of the probe; gets ``judgments.journal`` and ``judgments/ARM.jsonl``.
        budget: Limits of this run.
        on_judged: Called with the games just finished and the cost of this run.

    Returns:
        What each run of the judge took.

    Raises:
        ConfigError: If the protocol grades single answers.
        DataError: If answers are missing.
    """
    check_protocol(protocol)
    runs: list[Judged] = []
    for arm in arms:
        games: list[Game] = []
        for answers, baseline in _pairings(arm, grid, output):
            judged = judge_answers(
                plan_judgments(protocol, judge, questions, answers, baseline),
                journal=output / "judgments.journal",
                budget=budget,
                on_judged=on_judged,
            )
            runs.append(judged)
            games += [game for game in judged.judgments if isinstance(game, Game)]
        file = output / "judgments" / f"{arm}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_judgments(file, games)
    return runs


def _pairings(arm: str, grid: Grid, output: Path) -> Iterator[tuple[list[Answer], list[Answer]]]:
    """Answers under interventions with the baseline ones of the same seed, a seed at a time."""
    (plain,) = grid.plain()
    plain_seeds = grid.seeds(plain)
    for seed in range(grid.sampler.seed, grid.sampler.seed + grid.num_seeds):
        plain_seed = seed if seed in plain_seeds else plain_seeds[0]
        baseline = read_answers(grid.answer_file(output, arm, plain, plain_seed))
        intervened = [
            answer
            for condition in grid.interventions()
            for answer in read_answers(grid.answer_file(output, arm, condition, seed))
        ]
        yield intervened, baseline


def read_doses(arms: Sequence[str], grid: Grid, output: Path) -> dict[tuple[str, Condition], Dose]:
    """What the interventions did, summed over questions, turns and seeds, from the answer files."""
    found: dict[tuple[str, Condition], Dose] = {}
    for arm in arms:
        for condition in grid.interventions():
            counts = [
                [turn.rest["dose"][name] for name in Dose._fields]
                for seed in grid.seeds(condition)
                for turn in read_turns(grid.answer_file(output, arm, condition, seed))
            ]
            found[arm, condition] = Dose(*(sum(column) for column in zip(*counts, strict=True)))
    return found
