"""Judges, and what they are asked: protocols, calls, budgets."""
