"""Restoration of pictures."""
