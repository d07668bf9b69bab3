"""What is measured of sessions: comparison, certificates, replay, NeuroBench metrics."""
