#!/usr/bin/python3 -I
from pywg.cli import run_main

run_main()
