"""Tests of timewait.observe."""
