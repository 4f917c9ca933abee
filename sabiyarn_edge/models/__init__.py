"""The bundled model `nano`, and the script that trains it: python -m sabiyarn_edge.models.train_nano."""
