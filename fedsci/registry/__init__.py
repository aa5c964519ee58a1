"""Runs and models as folders and files, written whole or not at all."""
