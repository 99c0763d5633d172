"""The room of the test kit: what plugin authors test with."""
