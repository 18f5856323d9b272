"""How a trained model continues a beginning: tunes (MIDI, piano rolls) and sentences (text)."""
