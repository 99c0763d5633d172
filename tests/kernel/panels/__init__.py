"""The room of the panels: what people see of a village in a browser."""
