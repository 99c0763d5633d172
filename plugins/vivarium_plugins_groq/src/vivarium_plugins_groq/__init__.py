"""Residents think with the models of Groq."""
