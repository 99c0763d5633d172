"""Weather for a village."""
