"""Where does randomness come from? A generator for every purpose and number, from nothing else."""

import hashlib

import torch


def seeded_generator(*key: str | int) -> torch.Generator:
    """A CPU generator whose seed is a hash of the key, so that neighbouring keys share nothing."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
