"""Recipes: whole runs on known data, from pretraining to report."""
