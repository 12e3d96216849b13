"""Tests of the network and the models made of it."""
