"""Tests of the native library. A package, so that its conftest.py does not hide the one above it."""
