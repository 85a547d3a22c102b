"""The pages of `scripts/docs`."""
