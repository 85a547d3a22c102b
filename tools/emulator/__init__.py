"""An emulated PC with AVX-512, which runs one static program. README.md says more.

machine     makes its ROM, starts it, and reads how the program ended
"""
