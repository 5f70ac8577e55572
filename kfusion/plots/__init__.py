"""Figures and terminal tables, from numbers alone."""
