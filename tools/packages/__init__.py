"""Packages of distributions, from deploy/: made, and tried in roots of their own.

deb      scripts/build-deb
root     where things are installed
try_deb  scripts/try-deb
"""
