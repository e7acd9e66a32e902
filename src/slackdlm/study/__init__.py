"""Whole experiments: train, decode, judge and report in one go."""
