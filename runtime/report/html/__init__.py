"""A report as one HTML file that needs nothing else: no server, no network, no other file.

It is made of what `Report.to_dict`, `Program.to_dict`, `Result.to_dict`, `Comparison.to_dict` and `Activity.to_dict`
say, and of nothing else; every word that came from a file is escaped. NetworkX lays the graph out, matplotlib draws it,
Plotly draws the charts, Jinja writes the page: the extra `report`.
"""
