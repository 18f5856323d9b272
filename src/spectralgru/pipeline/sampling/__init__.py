"""What a trained model makes of a beginning: continuations of tunes (MIDI, piano rolls) and of sentences (text)."""
