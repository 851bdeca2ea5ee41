"""Benchmarks: paired runs on one machine, never a test."""
