"""The zoo: data sets, models and their training, for demos and tables. Knows nothing of editing."""
