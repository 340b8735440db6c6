"""Trained models in other programs' formats. One file a format."""
