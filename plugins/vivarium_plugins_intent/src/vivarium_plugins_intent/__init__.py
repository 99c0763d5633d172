"""Plans: a goal becomes tasks with dependencies and budgets, shown before they are posted."""
