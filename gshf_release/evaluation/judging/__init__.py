"""Language models as judges: their settings, asking them within a budget, and the benchmarks' protocols."""
