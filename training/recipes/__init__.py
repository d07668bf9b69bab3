"""Recipes: chains of trainings as data, from a teacher to a compiled policy and its evaluation (`recipe`, `chain`)."""
