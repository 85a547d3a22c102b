"""Decides what `pywg up` and `pywg reload` do: (Config, Facts) to a list of Steps. Does none of it.

Every Step prints as the line wg-quick would echo and knows the Step that undoes it. Knows no
kernel: Facts come in, tunnel/apply.py carries Steps out.
"""
