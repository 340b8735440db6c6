"""Tests of a fault carry its name in their reports, where `python -m tests.faults` reads it."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties += [("fault", mark.args[0]) for mark in item.iter_markers("fault")]
