"""Packages of distributions, from deploy/: made, and tried in roots of their own.

deb   scripts/build-deb
"""
