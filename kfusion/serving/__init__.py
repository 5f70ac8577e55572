"""Exported models: the endpoints in the graph, the proof that they keep their word, and how a version is published."""
