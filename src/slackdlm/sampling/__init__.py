"""Decoding a canvas of masks, and interventions on it."""
