"""From the bytes of an image file to the uint8 array a network sees; the only decoder, for every command."""
