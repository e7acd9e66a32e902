"""Benchmarks, answers, judges and statistics: what the texts are worth."""
