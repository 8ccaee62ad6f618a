"""The record: what physicians preferred, in SQLite. Knows no model, no web page and no torch."""
