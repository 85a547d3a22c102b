"""Made-up cases, and what must hold for each. scripts/fuzz is the command."""
