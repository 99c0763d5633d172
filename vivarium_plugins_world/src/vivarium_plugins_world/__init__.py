"""A 2D world of tiles in which residents walk, talk and shout."""
