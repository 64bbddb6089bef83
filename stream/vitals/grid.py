"""The grid on which beats and rhythms are found: the conditioned signal that the model sees too."""

FS = 100
"""Hz: see `stream.preprocess`, whose output everything here takes."""

BLOCK = 50
"""Samples that are judged together (0.5 s), anchored at grid index 0 of the session."""
