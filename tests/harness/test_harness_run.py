# ruff: noqa: E402
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

lm_eval = pytest.importorskip("lm_eval")

import datasets

from slackdlm.errors import ConfigError, DataError
from slackdlm.harness.adapter import HarnessLM
from slackdlm.harness.run import run_harness, write_results
from slackdlm.harness.tasks import Tasks
from slackdlm.sampling.sampler import SamplerConfig

CONFIG = SamplerConfig(canvas_length=8, steps=4, batch_size=8)
SHIPPED = Path(lm_eval.__file__).parent / "tasks"
LETTERS = ["A", "B", "C", "D"]


@pytest.fixture(autouse=True)
def no_inventory(monkeypatch):
    """lm-eval asks pip for all packages after every run, which takes seconds."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


def by_metric(result) -> dict[tuple[str, str], float | None]:
    return {(score.metric, score.filter): score.value for score in result.scores}


@pytest.fixture
def says(monkeypatch):
    """Makes the sampler say what a function of the prompt's text says, without the model."""

    def teach(lm: HarnessLM, answer) -> None:
        def generate(batch):
            texts = [answer(lm.loaded.tokenizer.decode(a.prompt_ids)) for a in batch]
            return [{"text": t, "tokens": list(t.encode()), "canvas": []} for t in texts]

        monkeypatch.setattr(lm, "_generate", generate)

    return teach


@pytest.fixture
def stub_hub(monkeypatch, rows):
    """The data sets of the shipped tasks, made up; and the metric that would run code, which only records it."""
    found = {
        "openai/gsm8k": {"train": rows["gsm8k"], "test": rows["gsm8k"]},
        "cais/mmlu": {"dev": rows["mmlu"], "test": rows["mmlu"]},
        "Idavidrein/gpqa": {"train": rows["gpqa"]},
        "google-research-datasets/mbpp": {"test": rows["mbpp"]},
    }

    def load_dataset(path, name=None, **_):
        splits = found[path]
        return datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in splits.items()})

    class Metric:
        run: ClassVar[list[str]] = []

        def compute(self, references, predictions, k):
            assert os.environ["HF_ALLOW_CODE_EVAL"] == "1"
            self.run += [code for codes in predictions for code in codes]
            return ({"pass@1": 0.5}, {})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    # The real one fetches the code that runs the code.
    monkeypatch.setitem(sys.modules, "evaluate", SimpleNamespace(load=lambda name: Metric()))
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "0")
    return Metric


def test_gsm8k_is_scored_by_what_the_model_says(speaker, gsm8k_task, rows, says, tmp_path):
    lm = HarnessLM(speaker, CONFIG)
    right = {row["question"]: row["answer"] for row in rows["gsm8k"][:4]}

    def answer(prompt: str) -> str:
        question = prompt.rpartition("Question: ")[2].removesuffix("\nAnswer:")
        return right.get(question, "I say #### 77") + "\nQuestion: what else? #### 5"

    says(lm, answer)
    result = run_harness(lm, Tasks(["toy_gsm8k"], [gsm8k_task]))
    # Without the stop text every answer would end in 5.
    assert by_metric(result) == {
        ("exact_match", "strict-match"): pytest.approx(4 / 6),
        ("exact_match", "flexible-extract"): pytest.approx(4 / 6),
    }
    score = result.scores[0]
    assert (score.task, score.num_questions, score.num_total) == ("toy_gsm8k", 6, 6)
    assert score.stderr == pytest.approx((4 / 6 * 2 / 6 / 5) ** 0.5)
    output = tmp_path / "results.json"
    write_results(output, result)
    document = json.loads(output.read_text(encoding="utf-8"))
    assert document["scores"][0]["value"] == pytest.approx(4 / 6)
    assert document["model"]["identity"]["sha256"] == lm.model_identity["sha256"]
    assert document["model"]["generation"]["canvas_length"] == 8
    questions = document["questions"]["toy_gsm8k"]
    assert [q["metrics"]["exact_match"] for q in questions if q["filter"] == "strict-match"] == [
        1, 1, 1, 1, 0, 0,
    ]  # fmt: skip
    assert questions[4]["responses"] == [["I say #### 77\n"]]


def test_the_first_questions_and_examples_are_those_asked_for(speaker, gsm8k_task):
    asked: list[str] = []
    lm = HarnessLM(speaker, CONFIG)
    generate = lm._generate
    lm._generate = lambda batch: (  # type: ignore[method-assign]
        asked.extend(speaker.tokenizer.decode(a.prompt_ids) for a in batch) or generate(batch)
    )
    tasks = Tasks([str(gsm8k_task / "toy_gsm8k.yaml")], [gsm8k_task])
    result = run_harness(lm, tasks, limit=2, chat=True, system="Be brief.")
    assert [s.num_questions for s in result.scores] == [2, 2]
    assert [s.num_total for s in result.scores] == [6, 6]
    assert len(asked) == 2
    assert all("system<|end_header_id|>\n\nBe brief.<|eot_id|>" in prompt for prompt in asked)
    assert all(prompt.endswith("assistant<|end_header_id|>\n\n") for prompt in asked)
    assert result.document["chat"] is True


@pytest.mark.usefixtures("stub_hub")
@pytest.mark.parametrize(
    ("file", "num_fewshot"),
    [
        ("gsm8k/gsm8k.yaml", 1),
        ("gpqa/zeroshot/gpqa_main_zeroshot.yaml", None),
        ("mmlu/default/mmlu_anatomy.yaml", None),
    ],
)
def test_simple_evaluate_takes_the_adapter_and_asks_the_same(speaker, file, num_fewshot):
    name = str(SHIPPED / file)
    lm = HarnessLM(speaker, CONFIG, mc_samples=1)
    found = lm_eval.simple_evaluate(
        model=lm, tasks=[name], num_fewshot=num_fewshot, task_manager=Tasks([name]), limit=3
    )
    assert found["config"]["identity"]["sha256"] == lm.model_identity["sha256"]
    result = run_harness(lm, Tasks([name]), num_fewshot=num_fewshot, limit=3)
    (task,) = found["results"]
    theirs = found["results"][task]
    assert all(theirs[f"{s.metric},{s.filter}"] == s.value for s in result.scores)
    ours, theirs = result.document["questions"][task], found["samples"][task]
    assert [q["arguments"] for q in ours] == [
        json.loads(json.dumps(s["arguments"])) for s in theirs
    ]
    assert result.scores[0].num_fewshot == (num_fewshot or 0)


def test_multiple_choice_picks_the_likeliest_choice(speaker, write_task, rows):
    folder = write_task(
        "toy_mmlu",
        rows["mmlu"],
        output_type="multiple_choice",
        doc_to_text="{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\n"
        "D. {{choices[3]}}\nAnswer:",
        doc_to_choice=LETTERS,
        doc_to_target="answer",
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )
    lm = HarnessLM(speaker, CONFIG, mc_samples=4)
    result = run_harness(lm, Tasks(["toy_mmlu"], [folder]))
    correct = []
    for sample in result.document["questions"]["toy_mmlu"]:
        values = [response[0][0] for response in sample["responses"]]
        again = HarnessLM(speaker, CONFIG, mc_samples=4)
        (value,) = again.loglikelihood([_instance(*sample["arguments"][2])])
        assert value[0] == pytest.approx(values[2], abs=3e-5)
        correct.append(values.index(max(values)) == sample["target"])
    assert by_metric(result) == {("acc", "none"): pytest.approx(sum(correct) / 6)}


def _instance(context: str, target: str):
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, (context, target), 0)


@pytest.mark.usefixtures("stub_hub")
@pytest.mark.parametrize(
    ("file", "right", "metric"),
    [
        ("gsm8k/gsm8k.yaml", "#### 100", ("exact_match", "strict-match")),
        ("mmlu/generative/mmlu_anatomy.yaml", " C\n", ("exact_match", "get_response")),
        (
            "gpqa/generative/gpqa_main_generative_n_shot.yaml",
            "(B)",
            ("exact_match", "flexible-extract"),
        ),
    ],
)
def test_shipped_tasks_are_answered_by_generation(speaker, says, file, right, metric):
    lm = HarnessLM(speaker, CONFIG)
    says(lm, lambda prompt: right)
    name = str(SHIPPED / file)
    result = run_harness(lm, Tasks([name]), num_fewshot=0)
    value = by_metric(result)[metric]
    assert value is not None
    assert 0 < value < 1
    lm = HarnessLM(speaker, CONFIG)
    says(lm, lambda prompt: "no answer at all")
    assert by_metric(run_harness(lm, Tasks([name]), num_fewshot=0))[metric] == 0


def test_model_code_is_run_only_if_that_was_said(speaker, stub_hub, says):
    name = str(SHIPPED / "mbpp" / "mbpp.yaml")
    with pytest.raises(
        ConfigError, match=r"mbpp\.yaml runs the code that the model writes.*--run-model-code"
    ):
        Tasks([name])
    assert os.environ["HF_ALLOW_CODE_EVAL"] == "0"
    assert stub_hub.run == []
    lm = HarnessLM(speaker, CONFIG)
    says(lm, lambda prompt: "def f(): pass[DONE]def g(): pass")
    result = run_harness(lm, Tasks([name], run_model_code=True), num_fewshot=0, limit=2)
    assert by_metric(result) == {("pass_at_1", "none"): 0.5}
    assert any("def f(): pass" in code for code in stub_hub.run)
    assert not any("def g()" in code for code in stub_hub.run)


def test_unsafe_tasks_are_found_in_groups_and_tags(write_task, rows):
    common = {"output_type": "generate_until", "doc_to_text": "{{text}}", "doc_to_target": "x"}
    folder = write_task("codes", rows["mbpp"], unsafe_code=True, tag=["mine"], **common)
    write_task("harmless", rows["mbpp"], tag=["calm"], **common)
    (folder / "all.yaml").write_text(
        "group: all\ntask:\n  - harmless\n  - group: inner\n    task: [codes]\n"
    )
    (folder / "some.yaml").write_text("group: some\ntask:\n  - task: codes\n")
    found = Tasks(["codes", "harmless"], [folder], run_model_code=True)
    assert "all" in found.task_index
    for name, leaves in {
        "all": ["harmless", "codes"],
        "some": ["codes"],
        "mine": ["codes"],
        "calm": ["harmless"],
    }.items():
        assert list(found._leaves(name)) == leaves
    with pytest.raises(ConfigError, match="codes runs the code"):
        Tasks(["harmless", "codes"], [folder])
    Tasks(["harmless"], [folder])


def test_names_folders_and_files_that_are_wrong_are_named(tmp_path, write_task, rows, monkeypatch):
    folder = write_task("mine_own", rows["gsm8k"], output_type="generate_until")
    # lm-eval's list of tasks takes half a minute to read: an empty one stands for it.
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(tmp_path / "none" / "manager.py"))
    with pytest.raises(ConfigError, match="unknown task 'mine_one'; did you mean mine_own"):
        Tasks(["mine_one"], [folder])
    with pytest.raises(ConfigError, match="unknown task 'zzz'; see lm_eval ls tasks"):
        Tasks(["zzz"], [folder])
    with pytest.raises(ConfigError, match="no task; name some"):
        Tasks([])
    with pytest.raises(ConfigError, match="nowhere: no such folder of task files"):
        Tasks(["mine_own"], [tmp_path / "nowhere"])
    for text in ("- 1\n", "a: [1", "\x00"):
        broken = tmp_path / "broken.yaml"
        broken.write_text(text)
        with pytest.raises(DataError, match=r"broken\.yaml: expected a task file of lm-eval"):
            Tasks([str(broken)])


def test_data_that_cannot_be_had_are_one_clear_error(speaker, gsm8k_task, monkeypatch):
    (gsm8k_task / "toy_gsm8k.jsonl").unlink()
    with pytest.raises(
        DataError, match=r"toy_gsm8k: a task or its data set cannot be loaded \(.*need a network"
    ):
        run_harness(HarnessLM(speaker, CONFIG), Tasks(["toy_gsm8k"], [gsm8k_task]))
