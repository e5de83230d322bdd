"""Tables made from result cells, for the terminal, cards and documents alike."""
