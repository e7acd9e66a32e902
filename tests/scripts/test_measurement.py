import threading

import measurement
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from measurement import most_held

CPU = torch.device("cpu")


class Ledger:
    """Takes and gives back tensors of known size, with the peak in bytes added up beside it."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []
        self.peak = 0

    def play(self, moves: list[int]) -> None:
        for move in moves:
            if move > 0:
                self.tensors.append(torch.empty(move, dtype=torch.uint8))
            elif self.tensors:
                del self.tensors[move % len(self.tensors)]
            self.peak = max(self.peak, sum(tensor.numel() for tensor in self.tensors))


moves = st.lists(st.integers(-5, -1) | st.integers(1, 5000), max_size=30)


@settings(max_examples=25, deadline=None)
@given(moves=moves)
def test_the_most_held_is_that_of_the_tensors_made(moves: list[int]):
    ledger = Ledger()
    assert most_held(lambda: ledger.play(moves), CPU) == ledger.peak


@settings(max_examples=15, deadline=None)
@given(before=moves, moves=moves)
def test_what_was_made_before_does_not_count_even_if_it_is_given_back(
    before: list[int], moves: list[int]
):
    old, new = Ledger(), Ledger()
    most_held(lambda: old.play(before), CPU)  # its tensors outlive a first account

    def work() -> None:
        old.tensors.clear()
        new.play(moves)

    assert most_held(work, CPU) == new.peak


def test_what_an_operation_needs_for_itself_counts():
    values = torch.arange(1000.0)[None].expand(50, 1000)
    # Strided as it is, it is copied before its softmax is written.
    assert most_held(lambda: torch.softmax(values.T, dim=0), CPU) >= 2 * 4 * 50 * 1000


def test_another_thread_s_tensors_are_not_taken_for_ours():
    started, done = threading.Event(), threading.Event()

    def other() -> None:
        while not done.is_set():
            torch.empty(1_000_000)
            started.set()

    thread = threading.Thread(target=other)
    thread.start()
    started.wait()

    def work() -> None:
        for _ in range(20):
            torch.empty(3000, dtype=torch.uint8)

    try:
        assert most_held(work, CPU) == 3000
    finally:
        done.set()
        thread.join()


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
    assert most_held(lambda: None, device) == 2
    assert measurement.hardware("cuda:1") == "a GPU"
    assert len(asked) == 8
    assert {where for _, where in asked} == {"cuda:1"}
