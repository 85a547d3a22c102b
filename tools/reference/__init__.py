"""A second, naive implementation of WireGuard's cryptography: the oracle of the tests."""
