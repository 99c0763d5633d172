"""A simulated society: whatever fails in it, in whatever order, its books and its board are as they must be."""
