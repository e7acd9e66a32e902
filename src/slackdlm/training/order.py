"""What is drawn at random, and in which order do samples come? Pure functions of seed and number."""

import hashlib
from collections.abc import Sequence

import torch

_POOL = 50
"""Batches among whose samples similar lengths are looked for. Ours, as in ``transformers``."""


def seeded_generator(*key: str | int) -> torch.Generator:
    """A CPU generator whose seed is a hash of the key, so that neighbouring keys share nothing."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


class SampleOrder:
    """Index of the sample of every draw.

    With a batch size, samples of similar length share a batch: a random pool of 50 batches is
    sorted by length and cut into batches, whose order is then shuffled. Batches are those of the
    optimizer steps, also where an epoch ends within one.
    """

    def __init__(
        self, lengths: Sequence[int], *, data_seed: int, batch_size: int | None = None
    ) -> None:
        self.lengths = lengths
        self.data_seed = data_seed
        self.batch_size = batch_size
        self._epochs: dict[int, list[int]] = {}

    def __getitem__(self, n: int) -> int:
        epoch, place = divmod(n, len(self.lengths))
        if epoch not in self._epochs:
            if len(self._epochs) > 1:
                self._epochs.clear()
            self._epochs[epoch] = self._draw_epoch(epoch)
        return self._epochs[epoch][place]

    def _draw_epoch(self, epoch: int) -> list[int]:
        generator = seeded_generator("order", self.data_seed, epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        if self.batch_size is None:
            return order
        # The end of the last epoch's final batch comes first, on its own.
        first = min(-epoch * len(order) % self.batch_size, len(order))
        batches: list[list[int]] = []
        pool_size = _POOL * self.batch_size
        for start in range(first, len(order), pool_size):
            pool = sorted(order[start : start + pool_size], key=lambda index: self.lengths[index])
            batches += [pool[i : i + self.batch_size] for i in range(0, len(pool), self.batch_size)]
        # A batch that is not full can only stand at the end: it is the one that the next epoch fills.
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        places = torch.randperm(len(full), generator=generator).tolist()
        ordered = [full[place] for place in places] + rest
        return order[:first] + [index for batch in ordered for index in batch]
