"""Compiles the core with plain zig commands. core.py imports nothing of ours: pip runs it alone."""
