"""Known faults: each test asserts what is right and is expected to fail; who mends a fault takes its mark away.

Tests of more than 5 s are marked slow and left out by default: ``python -m pytest -m slow tests/cases`` runs them.
"""
