"""The same tunnel with a partner that is not pywg. Needs root and the peers of scripts/peers."""
