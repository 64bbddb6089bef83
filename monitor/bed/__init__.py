"""One bed's leads and score, live."""
