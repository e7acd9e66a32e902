from slackdlm.study import toy_language as lang
from slackdlm.study.toy_judge import read_prompt


def test_the_same_seed_gives_the_same_tasks_and_another_does_not():
    assert lang.write_tasks(20, seed=1) == lang.write_tasks(20, seed=1)
    assert lang.write_tasks(20, seed=1) != lang.write_tasks(20, seed=2)


def test_prompts_are_distinct_and_unlike_the_training_prompts():
    train = lang.write_tasks(500, seed=1)
    prompts = frozenset(task.prompt for task in train)
    assert len(prompts) == 500
    # The same seed would repeat every prompt: only the ban keeps them apart.
    held_out = lang.write_tasks(100, seed=1, unlike=prompts)
    assert not prompts & {task.prompt for task in held_out}


def test_prompts_ask_for_words_of_the_story_in_its_order():
    for task in lang.write_tasks(200, seed=3):
        wanted = list(read_prompt(task.prompt).words)
        story = task.story.split()
        assert set(wanted) <= set(story)
        assert wanted == sorted(wanted, key=story.index)
        assert read_prompt(task.prompt).num_sentences == story.count(".")


def test_the_vocabulary_holds_every_word_written():
    words = set(lang.vocabulary())
    for task in lang.write_tasks(300, seed=4):
        assert set(task.prompt.split()) | set(task.story.split()) <= words


def test_count_words_never_occur_in_stories():
    stories = {w for task in lang.write_tasks(300, seed=5) for w in task.story.split()}
    assert not stories & {lang.ASK, *lang.COUNT_WORDS.values()}
