"""The process that stays beside a tunnel."""
