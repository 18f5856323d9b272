"""Trained models continue a beginning: tunes (MIDI, piano rolls) and sentences (text)."""
