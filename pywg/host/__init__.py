"""This machine: questions that answer plain values, and verbs that change one thing.

Knows no Step.
"""
