"""What is wrong with this host, a file or a running tunnel, and the line that mends it.

Facts are gathered (gather.py, and running.py of a tunnel that is up), functions without I/O judge
them, one file for each subject, and examine.py puts both together. file.py is for a file alone:
what `up` would say of it on any host. Invariant: nothing here changes anything.
"""

from pywg.doctor.finding import Finding, Severity, exit_code

__all__ = ["Finding", "Severity", "exit_code"]
