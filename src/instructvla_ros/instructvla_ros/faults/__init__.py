"""Faults made on purpose, to see what the graph does with them: pure engine, corruptions, a disk that fills up."""
