"""In place of Isaac Lab 3, for the tests of its simulator: what skrl's loader and wrapper touch."""
