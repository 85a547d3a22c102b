"""The packages of deploy/: Debian's is installed, the others' scripts run with what stands in for
their systems."""
