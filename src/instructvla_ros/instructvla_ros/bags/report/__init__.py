"""What came of a replay, for machines (JSON, CSV), for browsers (one HTML file) and for papers (PNG)."""
