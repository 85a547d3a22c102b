"""Measures beside other implementations: tunnels, cryptography, floods, calls."""
