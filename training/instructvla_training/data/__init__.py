"""Frames on disk: recording from the simulation, storage, sampling."""
