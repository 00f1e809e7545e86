"""The network that finds bones by name: its samples, training and evaluation."""
