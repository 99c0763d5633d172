"""Money between residents: bounties with escrow, slots and judged prizes."""
