"""Tidewatch: the program of the tide station at Greyling Point."""

VERSION = "1.9.2"
