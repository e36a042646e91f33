"""A run and its findings, for people and for programs: terminal, live view, JSON, CSV, HTML page.

Every renderer reads the same record and changes nothing in it. What they compute alike stands in `figures`, how a
number or a plan is worded in `words`.
"""
