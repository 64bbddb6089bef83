"""Paper and ink, the same on the live page and in reports.

Red and black also differ in lightness and width, for eyes that do not tell them apart. The live page has
them in ``static/bed.css`` once more, with those of its dark theme.
"""

PAPER, MINOR, MAJOR = "#fffcf7", "#f9e6dd", "#f0c4b4"
INK, EXPECTED = "#10151c", "#e0301e"
SLATE, RULE = "#5b6673", "#c9d0d8"
OVER, SCORE = "#d7191c", "#c96a00"

PRIORITY = {"high": "#c8001e", "medium": "#ffcf00", "low": "#1cc3e3"}
"""Red, yellow and cyan, as in IEC 60601-1-8."""

NO_PRIORITY = "#b4bec9"

ATTENTION = ("#f7fafd", "#9dc0de", "#08306b")
"""Least, even and most: light to dark blue, told apart without colour, and apart from black and red."""

ERROR = ("#fff8ee", "#f0a04b", "#7a3200")
"""None, half and most: light to dark orange, for the score is made of it."""
