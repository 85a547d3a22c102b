"""What runs, told to programs: metrics for Prometheus, events as lines of JSON.

Deciding is in ``series`` (a status becomes samples) and ``polling`` (two statuses become events).
"""
