"""Rows and files of tasks: reading, checking, holding apart, sampling episodes."""
