"""The room of the scaffold: the templates of a new plugin, and what writes them."""
