"""Cuts out clips: moving pictures and their sound."""
