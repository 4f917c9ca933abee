"""Measures a model on the machine at hand: `sabiyarn-edge bench MODEL`. Needs nothing but what generating needs."""
