import pytest
import torch

from slackdlm import measurement


def test_clock_memory_and_name_are_those_of_the_device_asked_for(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, str]] = []

    def record(name: str, value: object):
        def call(device: object = "the current one") -> object:
            asked.append((name, str(device)))
            return value

        monkeypatch.setattr(torch.cuda, name, call)

    record("synchronize", None)
    record("reset_peak_memory_stats", None)
    record("memory_allocated", 3)
    record("max_memory_allocated", 5)
    record("get_device_name", "a GPU")
    device = torch.device("cuda:1")
    measurement.now(device)
    assert measurement.reset_peak_memory(device) == 3.0
    assert measurement.peak_memory(device) == 5.0
    assert measurement.hardware("cuda:1") == "a GPU"
    assert len(asked) == 5
    assert {where for _, where in asked} == {"cuda:1"}
