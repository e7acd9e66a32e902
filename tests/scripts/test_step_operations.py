"""What slack-CTC adds to a training step does not grow with the model."""

from importlib import import_module


def test_slack_ctc_adds_as_few_operations_to_a_deep_model_as_to_a_shallow_one() -> None:
    bench = import_module("step_operations")
    added = []
    for num_layers in (1, 2):
        loaded = bench.adapted_model(num_layers)
        ce, slack_ctc = (bench.operations(loaded, bench.ARMS[arm]) for arm in ("ce", "slack_ctc"))
        assert slack_ctc[1] == ce[1]
        added.append(slack_ctc[0] - ce[0])
    assert added[0] == added[1]
    assert 0 < added[0] < 60
