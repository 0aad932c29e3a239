"""The browser of the page tests."""

from trendflow_tests.presentation.conftest import browser

__all__ = ["browser"]
