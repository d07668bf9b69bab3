"""A plan of integers as C99: one header, one source, and its constant tables. Text only: no compiler is run here."""
