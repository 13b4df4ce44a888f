"""Compute engines at run time: how they are reached, and what they say."""
