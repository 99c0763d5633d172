"""What residents are to each other: private journals that are reviewed blind."""
